"""The U-Net of Learning to See in the Dark, for sRGB (2018)."""
