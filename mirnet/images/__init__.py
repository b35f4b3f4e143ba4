"""Bytes <-> arrays: decoding, encoding and statistics of images.

Loaded on first use: the table of formats is read by params and the command line, which need no
decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from mirnet.images.formats import FORMATS as FORMATS

if TYPE_CHECKING:
    from mirnet.images.decoding import (
        decode as decode,
        read_rgb as read_rgb,
        read_size as read_size,
    )
    from mirnet.images.encoding import encode as encode, to_png as to_png
    from mirnet.images.image import (
        MAX_PIXELS as MAX_PIXELS,
        Image as Image,
        Made as Made,
        Pixels as Pixels,
        Seen as Seen,
    )
else:
    _HOMES = {
        **dict.fromkeys(("decode", "read_rgb", "read_size"), "decoding"),
        **dict.fromkeys(("encode", "to_png"), "encoding"),
        **dict.fromkeys(("MAX_PIXELS", "Image", "Made", "Pixels", "Seen"), "image"),
    }

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
