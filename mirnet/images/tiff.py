"""TIFF beyond what Pillow reads and writes. Tags: TIFF revision 6.0, sections 4, 6 and 8."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

_BITS, _PHOTOMETRIC, _PLANAR = 0x0102, 0x0106, 0x011C
_MIN_IS_WHITE, _SEPARATE = 0, 2


def write_16_bit(samples: npt.NDArray[np.uint16], *, alpha: bool, icc: bytes | None) -> bytes:
    """(H, W) grey, (H, W, 3) RGB or (H, W, 4) with transparency -> a file."""
    import tifffile

    buffer = io.BytesIO()
    tifffile.imwrite(
        buffer,
        samples,
        photometric="minisblack" if samples.ndim == 2 else "rgb",
        extrasamples=["unassalpha"] if alpha else None,
        planarconfig="contig",
        compression="zlib",
        iccprofile=icc,
        metadata=None,
    )
    return buffer.getvalue()


def is_whole(data: bytes) -> bool:
    """Whether this is a TIFF with all its bytes, of whatever kind."""
    if not data.startswith((b"II*\0", b"MM\0*")):
        return False
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
            return all(offset + count <= len(data) for offset, count in pieces)
    except (tifffile.TiffFileError, struct.error, *_DAMAGE):
        return False


_DAMAGE = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError)


def bits(picture: PIL.Image.Image) -> int:
    """Of the widest sample; 8 where it is no TIFF."""
    return max(_tag(picture, _BITS) or (8,))


def is_planar(picture: PIL.Image.Image) -> bool:
    """Wide samples in a plane a channel, which Pillow takes apart wrongly."""
    return bits(picture) > 8 and _tag(picture, _PLANAR) == _SEPARATE


def is_min_is_white(picture: PIL.Image.Image) -> bool:
    """Whether 0 is white."""
    return bool(_tag(picture, _PHOTOMETRIC) == _MIN_IS_WHITE)


def _tag(picture: PIL.Image.Image, number: int) -> Any:
    tags = getattr(picture, "tag_v2", None)
    return tags.get(number) if tags is not None and picture.format == "TIFF" else None
