"""Residual U-Net on an image of normalised brightness, for training in minutes."""
