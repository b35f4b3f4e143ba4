"""Terms of decompositions into reflectance and illumination (RetinexNet, PairLIE)."""
