"""Terms that weigh regions (MBLLEN)."""
