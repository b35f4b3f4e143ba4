"""A discriminator that is trained with the network, and the term that it gives."""
