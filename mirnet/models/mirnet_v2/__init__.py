"""MIRNet-v2 (2022)."""
