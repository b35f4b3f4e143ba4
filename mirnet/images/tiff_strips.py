"""Strips and tiles of a TIFF whose coding allows a check for completeness.

Deflate ends with a checksum, which libtiff does not check. JPEG (TIFF Technical Note 2) is
decoded here and not by libtiff, which only warns of missing data.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mirnet.images import jpeg
from mirnet.images.inflate import inflated_size

_STEP = 1 << 16
_YCBCR = 6
_MODES = {1: "GRAY", 3: "RGB", 4: "CMYK"}


def check_deflate(packed: memoryview, most: int) -> None:
    """Decompress up to the end of the stream, or to ``most`` bytes.

    Raises:
        zlib.error: not a zlib stream, or a wrong checksum.
        ValueError: its end is missing.
    """
    pieces = (bytes(packed[start : start + _STEP]) for start in range(0, len(packed), _STEP))
    found, ended = inflated_size(pieces, most)
    if not ended and found <= most:
        raise ValueError("the end of a strip is missing")


def read_jpeg(
    packed: bytes, tables: bytes, *, photometric: int, most: int
) -> npt.NDArray[np.uint8]:
    """(rows, columns, channels) of one strip or tile as stored, YCbCr as RGB.

    Args:
        tables: of the whole file (JPEGTables), or none.
        most: maximum number of pixels.

    Raises:
        Unreadable: ``unsupported``.
        ValueError: data are missing or damaged.
    """
    if packed[:2] != jpeg.SOI:
        raise ValueError("a strip is no JPEG")
    shared = tables.removeprefix(jpeg.SOI).removesuffix(jpeg.EOI)
    transform = 1 if photometric == _YCBCR else 0
    stream = jpeg.parse(jpeg.SOI + shared + packed[2:], transform=transform)
    if stream.height * stream.width > most:
        raise ValueError("a strip is larger than the image")
    return jpeg.decode(stream, _MODES[len(stream.components)])
