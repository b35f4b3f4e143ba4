"""MobileIE (2025)."""
