"""Cheap figures of a picture: for the manifest, for passing bright ones through, for drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_REC709 = np.array([0.2126, 0.7152, 0.0722], dtype=np.float32)
_SIDE = 256


@dataclass(frozen=True, slots=True)
class Measures:
    """All of 0 to 1, from the values as coded (no linearisation).

    ``luminance``: mean Rec. 709 luma. ``dark_share``, ``bright_share``: pixels with luma below
    0.05 and above 0.95. ``noise``: standard deviation by Immerkaer's Laplacian (1996).
    ``saturation``: mean of (max - min) / max over the channels.
    """

    luminance: float
    dark_share: float
    bright_share: float
    noise: float
    saturation: float


def measure(pixels: npt.NDArray[np.unsignedinteger[Any]]) -> Measures:
    """Measure (H, W, 3) RGB; large pictures on a grid of about 256x256, noise on their middle."""
    height, width = pixels.shape[:2]
    grid = _unit(pixels[:: max(1, height // _SIDE), :: max(1, width // _SIDE)])
    luma = grid @ _REC709
    red, green, blue = grid[..., 0], grid[..., 1], grid[..., 2]
    # pairwise: reducing over an axis of three takes twenty times as long
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    saturation = (largest - smallest) / np.maximum(largest, 1e-3)
    top, left = max(0, (height - _SIDE) // 2), max(0, (width - _SIDE) // 2)
    middle = _unit(pixels[top : top + _SIDE, left : left + _SIDE]) @ _REC709
    return Measures(
        luminance=float(luma.mean()),
        dark_share=float((luma < 0.05).mean()),
        bright_share=float((luma > 0.95).mean()),
        noise=_noise(middle),
        saturation=float(saturation.mean()),
    )


def _unit(pixels: npt.NDArray[np.unsignedinteger[Any]]) -> npt.NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def _noise(luma: npt.NDArray[np.float32]) -> float:
    """Immerkaer, Fast noise variance estimation (1996): the mask [1 -2 1] x [1 -2 1]."""
    if min(luma.shape) < 3:
        return 0.0
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean())
