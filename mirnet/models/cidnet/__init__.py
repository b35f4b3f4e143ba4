"""HVI-CIDNet (2025)."""
