"""Terms without a reference (Zero-DCE)."""
