"""Brightness by choice, in linear light and without clipping.

One curve changes all brightness. Of a pixel with the largest channel m, in linear light, a gain k
makes the odds m / (1 - m) k times as large::

    m' = k m / (1 + (k - 1) m)

In the shadows this is exposure (m' = k m). Black and white stay, nothing reaches either end, order
is kept, and gains multiply. The three channels are scaled alike, so hue and chromaticity stay.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from mirnet.images import Pixels
from mirnet.images.stats import to_luma

Light = npt.NDArray[np.float32]
"""(H, W, 3), 0 to 1: linear, or coded as sRGB."""

_BAND_PIXELS = 2**20
_MIN_ROWS = 64
# of the grid on which a mean is measured
_SIDE = 256
_STEPS = 24
# below half a level of 16 bits
_LEAST_LUMA = np.float32(1e-5)


def bands(height: int, width: int) -> Iterator[slice]:
    """Rows of an image in parts of about a megapixel."""
    rows = max(_MIN_ROWS, _BAND_PIXELS // width)
    for start in range(0, height, rows):
        yield slice(start, min(start + rows, height))


def unit(pixels: Pixels) -> Light:
    """Unsigned integers of full range -> [0, 1]."""
    return pixels.astype(np.float32) / np.float32(np.iinfo(pixels.dtype).max)


def linear(values: Light) -> Light:
    """Coded as sRGB (IEC 61966-2-1) -> linear; also above 1."""
    power = ((values.clip(0.04045) + 0.055) / 1.055) ** 2.4
    return np.asarray(np.where(values <= 0.04045, values / 12.92, power), np.float32)


def coded(values: Light) -> Light:
    """Linear -> coded as sRGB."""
    power = 1.055 * values.clip(0.0031308) ** (1 / 2.4) - 0.055
    return np.asarray(np.where(values <= 0.0031308, values * 12.92, power), np.float32)


def exposed(values: Light, gain: float | Light) -> Light:
    """(H, W, 3) in linear light by the curve of the module.

    Args:
        gain: of the whole image, or (H, W).
    """
    largest = np.maximum(np.maximum(values[..., 0], values[..., 1]), values[..., 2])
    factor = gain / (1 + (gain - 1) * largest)
    return values * np.asarray(factor, np.float32)[..., None]


def gain_for(output: Pixels, mean: float, *, max_stops: float) -> float:
    """The gain with which an output has a mean luma (Rec. 709, as coded), 0 to 1.

    Measured on a grid of at most 256x256 pixels. The nearest one of up to ``max_stops``, where
    black or saturated parts leave it out of reach.
    """
    light = linear(grid(output))
    low, high = -max_stops, max_stops
    for _ in range(_STEPS):
        stops = (low + high) / 2
        found = float(to_luma(coded(exposed(light, 2**stops))).mean(dtype=np.float64))
        low, high = (stops, high) if found < mean else (low, stops)
    return float(2 ** ((low + high) / 2))


def mean_luma(pixels: Pixels) -> float:
    """Of (H, W, 3), 0 to 1, on the grid of :func:`gain_for`."""
    return min(float(to_luma(grid(pixels)).mean(dtype=np.float64)), 1.0)


def grid(pixels: Pixels) -> Light:
    """At most 256x256 pixels of (H, W, 3), evenly spread; 0 to 1, as coded."""
    step, across = (-(-size // _SIDE) for size in pixels.shape[:2])
    return unit(pixels[::step, ::across])


def gain_beyond(low: Light, high: Light, more: float) -> Light:
    """Gain per pixel that continues the change of luma from input to output.

    Args:
        low: the input, as coded.
        high: the output, as coded.
        more: share of the change by which it is continued, from 0.
    """
    old, new = to_luma(low), np.maximum(to_luma(high), _LEAST_LUMA)
    change = np.float32(more) * (new - old)
    darker = new * np.exp(np.minimum(change, 0) / new)  # never negative
    return linear(np.where(change < 0, darker, new + change)) / linear(new)
