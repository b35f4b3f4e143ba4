"""Fast image statistics for the manifest, the brightness check and drift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.unsignedinteger[Any]]
Plane = npt.NDArray[np.float32]

Floats = TypeVar("Floats", bound=np.floating[Any])

# weights of red, green and blue in luma: Rec. 709 in the figures of a batch's manifest, Rec. 601 in
# scores, in the figures of data sets and in grey output
REC709 = np.array([0.2126, 0.7152, 0.0722])
REC601 = np.array([0.299, 0.587, 0.114])
_SIDE = 256
_REGIONS = 16
_DARKEST = 0.1


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


def measure(pixels: Pixels) -> Measures:
    """Measure (H, W, 3) RGB; large images on a grid of about 256x256, noise at their centre."""
    height, width = pixels.shape[:2]
    grid = to_unit(pixels[:: max(1, height // _SIDE), :: max(1, width // _SIDE)])
    luma = to_luma(grid)
    red, green, blue = grid[..., 0], grid[..., 1], grid[..., 2]
    # pairwise: reducing over an axis of three takes twenty times as long
    largest = np.maximum(np.maximum(red, green), blue)
    smallest = np.minimum(np.minimum(red, green), blue)
    saturation = (largest - smallest) / np.maximum(largest, 1e-3)
    top, left = max(0, (height - _SIDE) // 2), max(0, (width - _SIDE) // 2)
    middle = to_luma(to_unit(pixels[top : top + _SIDE, left : left + _SIDE]))
    return Measures(
        luminance=float(luma.mean()),
        dark_share=float((luma < 0.05).mean()),
        bright_share=float((luma > 0.95).mean()),
        noise=noise_sigma(middle),
        saturation=float(saturation.mean()),
    )


def shadows(pixels: Pixels) -> float:
    """Mean luma of the darkest tenth of the regions of (H, W, 3) RGB, 0 to 1.

    Low for a dark subject in front of a bright sky, but not for thin dark lines: regions are
    squares of a sixteenth of the longer side.
    """
    height, width = pixels.shape[:2]
    grid = pixels[:: max(1, height // _SIDE), :: max(1, width // _SIDE)]
    means = np.sort(regions(to_luma(to_unit(grid))))
    return float(means[: max(1, round(_DARKEST * means.size))].mean())


def to_unit(pixels: Pixels) -> Plane:
    """Unsigned integers of full range -> float32 in [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def to_luma(
    rgb: npt.NDArray[Floats], weights: npt.NDArray[np.float64] = REC709
) -> npt.NDArray[Floats]:
    """(H, W, 3) RGB or (H, W) grey -> luma (H, W), in the range and type of the input."""
    return rgb if rgb.ndim == 2 else np.asarray(rgb @ weights.astype(rgb.dtype))


def regions(luma: Plane) -> Plane:
    """Means over squares, 16 along the longer side: (number,). Incomplete squares are left out."""
    height, width = luma.shape
    side = max(1, max(height, width) // _REGIONS)
    side = min(side, height, width)
    rows, columns = height // side, width // side
    whole = luma[: rows * side, : columns * side]
    means: Plane = whole.reshape(rows, side, columns, side).mean(axis=(1, 3)).ravel()
    return means


def noise_sigma(luma: npt.NDArray[np.floating[Any]]) -> float:
    """Standard deviation of the noise of (H, W) luma, in the luma's unit, without a reference.

    Immerkaer, Fast noise variance estimation (1996): the mask [1 -2 1] x [1 -2 1]. Texture counts
    as noise.
    """
    if min(luma.shape) < 3:
        return 0.0
    rows = luma[:-2] - 2 * luma[1:-1] + luma[2:]
    mask = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    return float(np.sqrt(np.pi / 2) / 6 * np.abs(mask).mean())
