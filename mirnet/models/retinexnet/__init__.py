"""RetinexNet (2018)."""
