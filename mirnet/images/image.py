"""A decoded picture and what it carries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8 | np.uint16]

MAX_PIXELS = 200_000_000


@dataclass(frozen=True)
class Image:
    """A decoded image, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8 or uint16 with the full range of its type.
        format: where it came from, one of ``FORMATS``.
        alpha: (H, W) of the same type; none when opaque.
        grey: the three channels are equal, and one is stored.
        icc: colour profile, kept as it is.
        exif: metadata with the orientation already applied and reset.
        lossless: of a WebP: without loss, and written so.
    """

    pixels: Pixels
    format: str = "PNG"
    alpha: Pixels | None = None
    grey: bool = False
    icc: bytes | None = None
    exif: bytes | None = None
    lossless: bool = False
