"""What can be said of one image file, and of a pair of them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

Pixels = npt.NDArray[np.uint8]
Luminance = npt.NDArray[np.float32]

BITS = {"1": 1, "I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}
"""Bits a channel of Pillow's modes; 8 for all others."""


@dataclass(frozen=True)
class FileFacts:
    """One file. Luminance is BT.601 of 0 to 255. None: could not be measured."""

    width: int | None = None
    height: int | None = None
    mode: str | None = None
    bits: int | None = None
    format: str | None = None
    mean: float | None = None
    error: str | None = None


def names() -> list[str]:
    """Columns of the facts of a file."""
    return [field.name for field in fields(FileFacts)]


def measure_file(path: Path) -> FileFacts:
    """Decode and measure one file; what goes wrong is a fact too."""
    try:
        # a bomb or odd metadata warns: what counts here is whether it decodes
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                known = FileFacts(
                    width=image.width,
                    height=image.height,
                    mode=image.mode,
                    bits=BITS.get(image.mode, 8),
                    format=image.format,
                )
                pixels = np.asarray(image.convert("RGB"))
    except UnidentifiedImageError:
        return FileFacts(error="not an image")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return FileFacts(error=f"does not decode: {error}")
    return FileFacts(**{**vars(known), "mean": float(luminance(pixels).mean())})


def luminance(pixels: Pixels) -> Luminance:
    """BT.601 luminance (H, W), float32 in 0 to 255, of uint8 RGB (H, W, 3)."""
    return np.asarray(pixels @ np.array([0.299, 0.587, 0.114], np.float32), np.float32)
