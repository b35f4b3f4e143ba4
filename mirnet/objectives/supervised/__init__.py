"""Terms against a reference."""
