"""Zero-DCE (2020)."""
