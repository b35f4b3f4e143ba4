"""A decoded picture and what it carries."""

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
    """Pixels per unit across and down; with unit ``none`` only their ratio means something."""

    across: float
    down: float
    unit: Literal["inch", "cm", "metre", "none"] = "inch"

    def turned(self) -> Resolution:
        """Of the picture turned by a quarter."""
        return replace(self, across=self.down, down=self.across)

    def per(self, unit: Literal["inch", "cm", "metre"]) -> Resolution:
        """The same in another unit; ratios stay as they are."""
        if self.unit in ("none", unit):
            return self
        factor = _METRES[unit] / _METRES[self.unit]
        return Resolution(self.across * factor, self.down * factor, unit)


@dataclass(frozen=True)
class Metadata:
    """What a file says of its picture besides profile and EXIF.

    Attributes:
        xmp: the packet.
        xmp_extensions: JPEG's segments with the rest of a packet over 64 kB.
        photoshop: image resource blocks (8BIM), with IPTC among them.
        iptc: IPTC records where they stand by themselves, as in TIFF.
        resolution: of the picture as it lies in the file or, decoded, upright.
        comments: of JPEG.
        text: PNG's chunks tEXt, zTXt and iTXt, as (kind, body).
        colour: PNG's chunks that say what its samples mean, but the profile.
        others: further PNG chunks that are safe to copy.
        dropped: what was left behind, one word or two for each.
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
        format: where it came from, one of ``FORMATS``.
        alpha: (H, W) of the same type; none when opaque. Colours are not multiplied by it.
        grey: the three channels are equal, and one is stored.
        icc: colour profile, kept as it is.
        exif: the EXIF block (a TIFF structure), orientation and sizes as they are now.
        lossless: of a WebP: without loss, and written so.
        metadata: everything else that is carried over.
    """

    pixels: Pixels
    format: str = "PNG"
    alpha: Pixels | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    lossless: bool = False
    metadata: Metadata = field(default_factory=Metadata)


def after(data: bytes, end: int) -> tuple[str, ...]:
    """What to say of bytes behind the end of a picture; space that is filled up is nothing."""
    rest = data[end:].strip(b"\0\xff\r\n ")
    return (f"{len(rest)} bytes after the picture",) if rest else ()
