"""Terms of SCI, without a reference."""
