"""Bytes <-> arrays: decoding, encoding and statistics of images.

Loaded on first use: the table of formats is read by params and the command line, which need no
decoder.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mirnet.images.formats import FORMATS

if TYPE_CHECKING:
    from mirnet.images.decoding import decode, read_rgb, read_size
    from mirnet.images.encoding import encode, to_png
    from mirnet.images.image import MAX_PIXELS, Image, Pixels

_HOMES = {
    "decode": "decoding",
    "read_rgb": "decoding",
    "read_size": "decoding",
    "encode": "encoding",
    "to_png": "encoding",
    "MAX_PIXELS": "image",
    "Image": "image",
    "Pixels": "image",
}

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


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
