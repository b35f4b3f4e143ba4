"""The grain of an input, added to its output.

The output is what the network made of the input: lighter and smoother. Grain is what of the input
is not explained by the output, locally and linearly (the residual of a guided filter, He et al.,
ECCV 2010): edges are in both, noise and the finest detail are not. It is scaled by the local gain
in linear light, as noise is when a photograph is exposed longer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mirnet.images import Pixels
from mirnet.inference.light import bands, coded, linear, unit
from mirnet.signals import advance

Light = npt.NDArray[np.float64]

RADIUS = 4
# contrast between noise and edges, relative to the local mean
_CONTRAST = 0.1
# one level of 8 bits near black, in linear light
_LEVEL = 1 / 255 / 12.92


def with_grain(before: Pixels, output: Pixels, share: float) -> npt.NDArray[np.uint16]:
    """The output with a share of the input's grain, 0 to 1.

    Args:
        before: (H, W, 3), uint8 or uint16.
        output: of the same height and width.
    """
    height, width = before.shape[:2]
    made = np.empty(output.shape, np.uint16)
    for band in bands(height, width):
        advance()
        top = max(0, band.start - 2 * RADIUS)
        seen = slice(top, band.stop + 2 * RADIUS)
        kept = slice(band.start - top, band.stop - top)
        low, high = (linear(unit(pixels[seen])).astype(np.float64) for pixels in (before, output))
        grainy = high[kept] + share * grain(low, high)[kept]
        made[band] = (coded(grainy.clip(0, 1).astype(np.float32)) * 65535).round()
    return made


def grain(low: Light, high: Light) -> Light:
    """The grain of ``low`` at the brightness of ``high``; both (H, W, 3) in linear light."""
    low_mean, high_mean = _mean(low), _mean(high)
    spread = _mean(high * high) - high_mean**2
    shared = _mean(low * high) - low_mean * high_mean
    slope = shared.clip(0) / (spread.clip(0) + (_CONTRAST * (high_mean + _LEVEL)) ** 2)
    explained = _mean(slope) * high + _mean(low_mean - slope * high_mean)
    grained: Light = (low - explained) * (high_mean + _LEVEL) / (low_mean + _LEVEL)
    return grained


def _mean(values: Light) -> Light:
    """Means over squares of ``2 * RADIUS + 1`` pixels; at the border over what is there."""
    for axis in (0, 1):
        size = values.shape[axis]
        sums = np.cumsum(values, axis=axis)
        sums = np.insert(sums, 0, 0, axis=axis)
        places = np.arange(size)
        start, stop = (places - RADIUS).clip(0), (places + RADIUS + 1).clip(max=size)
        count = (stop - start).reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        values = (sums.take(stop, axis=axis) - sums.take(start, axis=axis)) / count
    return values
