"""Terms on likelihoods (LLFlow)."""
