"""Residual U-Net on a normalised image at half resolution, for training in minutes."""
