"""Image in, image out: padding, tiles, precision, compilation."""

from mirnet.inference.enhancer import Enhancer

__all__ = ["Enhancer"]
