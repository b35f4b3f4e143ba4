"""The table of image formats, used by code, documentation and tests.

Imports nothing heavy: params and the command line read it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fate = Literal["kept", "converted", "dropped"]
"""How a field of metadata is treated when a file of a format is written."""

# field -> description, for the documentation
FIELDS = {
    "icc": "ICC profile",
    "exif": "EXIF: byte for byte except orientation and sizes",
    "XMP": "XMP packet",
    "IPTC": "IPTC and other Photoshop resources",
    "resolution": "pixels per inch, centimetre or metre",
    "colour": "gAMA, cHRM, sRGB, cICP, mDCV, cLLI",
    "text": "tEXt, zTXt, iTXt",
    "comments": "JPEG comments",
    "further chunks": "tIME and PNG chunks marked as safe to copy",
}


DECODE_FILE, DECODE_FIXED = 4, 128 << 20


@dataclass(frozen=True)
class Format:
    """Name, detection and capabilities of a file format.

    Attributes:
        name: as in ``Image.format``.
        content_type: the registered media type.
        suffixes: of file names, in lower case; the first is the usual one.
        magic: bytes that its files may begin with.
        depths: bits per sample that are written.
        alpha: whether it holds transparency.
        kept: fields of ``FIELDS`` that are written unchanged.
        converted: fields that are stored in another field.
        reads: variants that can be read, for the documentation.
        decode_bytes: maximum memory of decoding per pixel, besides ``DECODE_FILE`` times the
            size of the file and ``DECODE_FIXED`` bytes.
    """

    name: str
    content_type: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...]
    reads: str
    decode_bytes: int
    depths: tuple[int, ...] = (8,)
    alpha: bool = True
    kept: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()

    def fate(self, field: str) -> Fate:
        """Of one of ``FIELDS``."""
        if field in self.kept:
            return "kept"
        return "converted" if field in self.converted else "dropped"


TABLE = (
    Format(
        "PNG",
        "image/png",
        (".png",),
        (b"\x89PNG\r\n",),
        reads="1 to 16 bits, palettes, transparent colours, interlaced; one frame",
        decode_bytes=18,
        depths=(8, 16),
        kept=("icc", "exif", "XMP", "resolution", "colour", "text", "further chunks"),
        converted=("IPTC", "comments"),
    ),
    Format(
        "JPEG",
        "image/jpeg",
        (".jpg", ".jpeg", ".jfif", ".jpe"),
        (b"\xff\xd8\xff",),
        reads="baseline and progressive coding of 8 bits; grey, colour, CMYK; of "
        "several images (MPO) the first",
        decode_bytes=12,
        alpha=False,
        kept=("icc", "exif", "XMP", "IPTC", "resolution", "comments"),
        converted=("colour",),
    ),
    Format(
        "WEBP",
        "image/webp",
        (".webp",),
        (b"RIFF",),
        reads="lossy and lossless; one frame",
        decode_bytes=22,
        kept=("icc", "exif", "XMP"),
        converted=("colour",),
    ),
    Format(
        "TIFF",
        "image/tiff",
        (".tif", ".tiff"),
        (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
        reads="1 to 16 bits of grey, 8 and 16 of RGB, palettes, CMYK of 8 bits; in strips, tiles "
        "or planes; one page, with reduced copies or masks of it",
        decode_bytes=32,
        depths=(8, 16),
        kept=("icc", "exif", "XMP", "IPTC", "resolution"),
        converted=("colour",),
    ),
    Format(
        "BMP",
        "image/bmp",
        (".bmp", ".dib"),
        (b"BM",),
        reads="1 to 32 bits, run-length coding",
        decode_bytes=14,
        kept=("resolution",),
    ),
)
FORMATS = tuple(entry.name for entry in TABLE)
SUFFIXES = tuple(suffix for entry in TABLE for suffix in entry.suffixes)
_BY_NAME = {entry.name: entry for entry in TABLE}
_BY_SUFFIX = {suffix: entry for entry in TABLE for suffix in entry.suffixes}


def format_named(name: str) -> Format:
    """The entry of one of ``FORMATS``."""
    return _BY_NAME[name]


def format_of_suffix(suffix: str) -> Format | None:
    """The format of a file name suffix, case-insensitive; none if unknown."""
    return _BY_SUFFIX.get(suffix.lower())
