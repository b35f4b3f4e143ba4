"""IAT, the Illumination Adaptive Transformer (2022)."""
