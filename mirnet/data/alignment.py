"""Alignment of low and high: the same content at the same position."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import fft
from scipy.ndimage import gaussian_filter

from mirnet.data.measures import Luminance

WINDOW = 1024
"""Pixels; larger images are judged by their centre."""
REACH = 24
"""Maximum shift in pixels."""
_BIN = 2


@dataclass(frozen=True)
class PairFacts:
    """Alignment of a pair; None: not comparable."""

    alignment: float | None = None
    """Correlation of local contrast at the best shift: 1 same, about 0 unrelated."""
    in_place: float | None = None
    """The same correlation without shift."""
    shift_x: float | None = None
    """Pixels by which low lies to the right of high at the best shift."""
    shift_y: float | None = None


def align(low: Luminance, high: Luminance) -> PairFacts:
    """Compare two luminances of the same size (H, W).

    Local contrast of the logarithm removes exposure, tone curve and vignetting, so that a dark
    image and its reference become similar. Correlated by FFT over all shifts up to ``REACH``; the
    peak is interpolated by a parabola.
    """
    if low.shape != high.shape or min(low.shape) < 4 * REACH:
        return PairFacts()
    # the offset keeps the noise of a dark image from becoming contrast
    first, second = (_local_contrast(_window(x), offset) for x, offset in ((low, 2), (high, 8)))
    norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
    if norm == 0:
        return PairFacts()
    spectrum = fft.rfft2(first) * np.conj(fft.rfft2(second))
    reach = REACH // _BIN
    whole = np.roll(fft.irfft2(spectrum, s=first.shape), (reach, reach), (0, 1)) / norm
    near = whole[: 2 * reach + 1, : 2 * reach + 1]
    top, left = np.unravel_index(int(near.argmax()), near.shape)
    return PairFacts(
        alignment=float(near.max()),
        in_place=float(near[reach, reach]),
        shift_x=float(_BIN * (left - reach + _vertex(near[top], int(left)))),
        shift_y=float(_BIN * (top - reach + _vertex(near[:, left], int(top)))),
    )


def _window(grey: Luminance) -> Luminance:
    """The centre, in bins of 2x2: a quarter of the work, half of the noise."""
    height, width = (min(n, WINDOW) // _BIN * _BIN for n in grey.shape)
    top, left = (grey.shape[0] - height) // 2, (grey.shape[1] - width) // 2
    middle = grey[top : top + height, left : left + width]
    blocks = middle.reshape(height // _BIN, _BIN, width // _BIN, _BIN)
    return np.asarray(blocks.mean(axis=(1, 3)), np.float32)


def _local_contrast(grey: Luminance, offset: float) -> Luminance:
    logarithm = np.log(gaussian_filter(grey, 1.5) + np.float32(offset))
    detail = logarithm - gaussian_filter(logarithm, 8)
    contrast = detail / (np.sqrt(gaussian_filter(detail**2, 8)) + np.float32(0.1))
    # faded out at the image border, which does not move with the content
    fade = [
        np.minimum(1, np.minimum(np.arange(n) + 1, n - np.arange(n)) / REACH) for n in grey.shape
    ]
    return np.asarray((contrast - contrast.mean()) * np.outer(*fade), np.float32)


def _vertex(values: npt.NDArray[np.floating], at: int) -> float:
    """Offset of the vertex of a parabola through three samples, -0.5 to 0.5."""
    if not 0 < at < len(values) - 1:
        return 0.0
    before, here, after = (float(v) for v in values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return 0.5 * (before - after) / bend if bend < 0 else 0.0
