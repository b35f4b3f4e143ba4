"""Terms of LYT-Net, beside those of supervision that it shares."""
