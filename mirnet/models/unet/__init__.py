"""U-Net as used for restoration (2015)."""
