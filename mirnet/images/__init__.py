"""Bytes <-> arrays: decoding, encoding and figures of pictures."""

from mirnet.images.codec import (
    FORMATS,
    MAX_PIXELS,
    Image,
    Pixels,
    decode,
    encode,
    read_rgb,
    read_size,
    to_png,
)

__all__ = [
    "FORMATS",
    "MAX_PIXELS",
    "Image",
    "Pixels",
    "decode",
    "encode",
    "read_rgb",
    "read_size",
    "to_png",
]
