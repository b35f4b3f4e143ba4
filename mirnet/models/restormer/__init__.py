"""Restormer (2022)."""
