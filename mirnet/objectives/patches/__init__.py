"""Terms on small patches (LLNet)."""
