"""Inference on images of any size: margin, tiles, precision, compilation."""

from mirnet.inference.enhancer import Enhancer

__all__ = ["Enhancer"]
