"""Distance between features of a VGG network, whose weights the user brings."""
