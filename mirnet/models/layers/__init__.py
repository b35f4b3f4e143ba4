"""Layers of the networks, one per module."""
