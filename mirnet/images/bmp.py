"""BMP -> array, and writing of 32 bits with transparency (BITMAPV4HEADER)."""

from __future__ import annotations

import io
import struct
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from PIL.BmpImagePlugin import BmpImageFile

from mirnet.images import strips
from mirnet.images.image import Image, Metadata, Resolution, Unreadable

_FILE_HEADER, _HEADER = 14, 108
_BITFIELDS = 3
# a header of this size may have a profile, or the name of one
_V5, _COLOUR_SPACE = 124, 14 + 56
# which bits are red, green, blue and alpha
_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF, 0xFF000000)
_LARGEST = 2**31 - 1


def open_file(data: bytes) -> BmpImageFile:
    """The header.

    Raises:
        Unreadable: ``unsupported``.
    """
    try:
        return BmpImageFile(io.BytesIO(data))
    except OSError as error:
        if str(error).startswith("Unsupported"):
            raise Unreadable(f"BMP: {error}") from error
        raise


def read(pillow: BmpImageFile, data: bytes) -> Image:
    """The image; an alpha channel that is 0 everywhere is ignored, as unused by its writer."""
    across, down = pillow.info.get("dpi", (0, 0))
    resolution = Resolution(across, down).per("metre") if across > 0 and down > 0 else None
    image = strips.to_image(pillow, "BMP")
    if image.alpha is not None and not image.alpha.any():
        image = replace(image, alpha=None)
    profile = data[14] == _V5 and data[_COLOUR_SPACE : _COLOUR_SPACE + 4] in (b"DEBM", b"KNIL")
    dropped = ("colour profile",) if profile else ()
    return replace(image, metadata=Metadata(resolution=resolution, dropped=dropped))


def write_with_alpha(rgba: npt.NDArray[np.uint8], resolution: Resolution | None) -> bytes:
    """(H, W, 4) -> a file; Pillow writes 32 bits without a mask, which are read as opaque.

    Raises:
        struct.error: more bytes than the format allows.
    """
    height, width = rgba.shape[:2]
    per_metre = resolution.per("metre") if resolution else Resolution(0, 0)
    across, down = (min(_LARGEST, round(v)) for v in (per_metre.across, per_metre.down))
    start = _FILE_HEADER + _HEADER
    sizes = (_HEADER, width, height, 1, 32, _BITFIELDS, rgba.nbytes, across, down, 0, 0)
    header = struct.pack("<IiiHHIIiiII", *sizes) + struct.pack("<4I", *_MASKS)
    header = (header + b"BGRs").ljust(_HEADER, b"\0")
    rows = np.ascontiguousarray(rgba[::-1][..., [2, 1, 0, 3]])
    return struct.pack("<2sIII", b"BM", start + rgba.nbytes, 0, start) + header + rows.tobytes()
