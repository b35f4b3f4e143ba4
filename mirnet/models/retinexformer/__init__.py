"""Retinexformer (2023)."""
