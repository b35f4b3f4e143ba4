"""Training on a Ray cluster: the only modules of training that import Ray."""
