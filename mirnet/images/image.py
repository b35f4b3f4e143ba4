"""A decoded image with its metadata."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8 | np.uint16]

MAX_PIXELS = 200_000_000
_METRES = {"inch": 0.0254, "cm": 0.01, "metre": 1.0}


@dataclass(frozen=True)
class Resolution:
    """Pixels per unit across and down; with unit ``none`` only the ratio is defined."""

    across: float
    down: float
    unit: Literal["inch", "cm", "metre", "none"] = "inch"

    def turned(self) -> Resolution:
        """The resolution of the image rotated by 90 degrees."""
        return replace(self, across=self.down, down=self.across)

    def per(self, unit: Literal["inch", "cm", "metre"]) -> Resolution:
        """Converted to another unit; ratios are unchanged."""
        if self.unit in ("none", unit):
            return self
        factor = _METRES[unit] / _METRES[self.unit]
        return Resolution(self.across * factor, self.down * factor, unit)


@dataclass(frozen=True)
class Metadata:
    """Metadata of an image file besides profile and EXIF.

    Attributes:
        xmp: the packet.
        xmp_extensions: JPEG's segments with the rest of a packet over 64 kB.
        photoshop: image resource blocks (8BIM), with IPTC among them.
        iptc: IPTC records outside of ``photoshop``, as in TIFF.
        resolution: of the image as stored or, after decoding, upright.
        comments: of JPEG.
        text: PNG's chunks tEXt, zTXt and iTXt, as (kind, body).
        colour: PNG's colour chunks except the profile.
        others: further PNG chunks that are safe to copy.
        dropped: metadata that were dropped, named in a word or two each.
    """

    xmp: bytes | None = None
    xmp_extensions: tuple[bytes, ...] = ()
    photoshop: bytes | None = None
    iptc: bytes | None = None
    resolution: Resolution | None = None
    comments: tuple[bytes, ...] = ()
    text: tuple[tuple[bytes, bytes], ...] = ()
    colour: tuple[tuple[bytes, bytes], ...] = ()
    others: tuple[tuple[bytes, bytes], ...] = ()
    dropped: tuple[str, ...] = ()


@dataclass(frozen=True)
class Image:
    """A decoded image, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 or uint16 with the full range of its type.
        format: of the file it was read from, one of ``FORMATS``.
        alpha: (H, W) of the same type; none when opaque. Colours are not multiplied by it.
        grey: the three channels are equal, and one is stored.
        icc: colour profile, unchanged.
        exif: the EXIF block (a TIFF structure), with present orientation and sizes.
        lossless: WebP only: stored and written losslessly.
        metadata: all other metadata.
    """

    pixels: Pixels
    format: str = "PNG"
    alpha: Pixels | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    lossless: bool = False
    metadata: Metadata = field(default_factory=Metadata)


@dataclass(frozen=True, slots=True)
class Made:
    """An enhanced image.

    ``own``: (H, W, 3), what the network made of it, without a person's choices beyond a mixture
    with the input; the safety checks judge this. ``evened``: stops that brought it to the
    brightness of the images before it; none: that was not asked for.
    """

    image: Image
    own: Pixels
    evened: float | None = None


THUMBNAIL_SIDE = 16


@dataclass(frozen=True, slots=True)
class Seen:
    """What later images of a sequence need of one.

    ``thumbnail``: log luma of the input, 16x16 values without their mean, of norm 1 (flat: 0).
    ``brightness``: mean luma (Rec. 709, as coded, 0 to 1) of what becomes of it by itself.
    """

    thumbnail: tuple[float, ...]
    brightness: float


class Unreadable(Exception):
    """Why a file is not read; ``reason`` as of :class:`~mirnet.errors.ImageError`, which names the
    file.
    """

    def __init__(self, what: str, reason: str = "unsupported") -> None:
        super().__init__(what)
        self.reason = reason


def after(data: bytes, end: int) -> tuple[str, ...]:
    """Description of bytes after the end of an image; none for padding."""
    rest = data[end:].strip(b"\0\xff\r\n ")
    return (f"{len(rest)} bytes after the picture",) if rest else ()
