"""Training on Ray; the only modules of training that import Ray."""
