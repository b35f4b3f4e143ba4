"""The formats of pictures: the one table that code, documentation and tests read.

Imports nothing heavy: params and the command line read it too.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """What a file format is called, how it is recognised and what its samples can be.

    Attributes:
        name: as in ``Image.format``.
        content_type: the registered media type.
        suffixes: of file names, in lower case; the first is the usual one.
        magic: what its files may begin with.
        depths: bits per sample that are written.
        alpha: whether it holds transparency.
    """

    name: str
    content_type: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    depths: tuple[int, ...] = (8,)
    alpha: bool = True


TABLE = (
    Format("PNG", "image/png", (".png",), (b"\x89PNG\r\n",), depths=(8, 16)),
    Format("JPEG", "image/jpeg", (".jpg", ".jpeg"), (b"\xff\xd8\xff",), alpha=False),
    Format("WEBP", "image/webp", (".webp",), (b"RIFF",)),
    Format("TIFF", "image/tiff", (".tif", ".tiff"), (b"II*\0", b"MM\0*"), depths=(8, 16)),
    Format("BMP", "image/bmp", (".bmp",), (b"BM",), alpha=False),
)
FORMATS = tuple(entry.name for entry in TABLE)
SUFFIXES = tuple(suffix for entry in TABLE for suffix in entry.suffixes)
_BY_NAME = {entry.name: entry for entry in TABLE}
_BY_SUFFIX = {suffix: entry for entry in TABLE for suffix in entry.suffixes}


def format_named(name: str) -> Format:
    """The entry of one of ``FORMATS``."""
    return _BY_NAME[name]


def format_of_suffix(suffix: str) -> Format | None:
    """The format that a file name's suffix stands for, in any case; none where it is unknown."""
    return _BY_SUFFIX.get(suffix.lower())
