"""How much of an output an image gets, by how bright its shadows are: bright images need nothing.

A network brightens; an image with bright shadows stays as it is. Between the two the output is
mixed with its input, so that two images of nearly equal light come out nearly alike.
"""

from __future__ import annotations

import numpy as np

from mirnet.images.image import Pixels

_FADES_FROM = 2 / 3
"""Of the limit: darker images get all of the output."""
_BAND_ROWS = 256


def share_of_output(shadows: float, limit: float | None) -> float:
    """1: all of it; 0: none, the image is passed through; between: a mixture with the input.

    Args:
        shadows: of the input, of :func:`mirnet.images.stats.shadows`.
        limit: ``enhance.pass_luminance``; none: every image gets all of its output.
    """
    if limit is None:
        return 1.0
    share = (limit - shadows) / (limit * (1 - _FADES_FROM))
    return min(1.0, max(0.0, share))


def mixed(before: Pixels, after: Pixels, share: float) -> Pixels:
    """That share of an output with the rest of its input, as coded.

    Args:
        before, after: (H, W, 3) of one type, uint8 or uint16.

    Returns:
        ``after`` itself for a share of 1, else a new array of its type.
    """
    if share == 1:
        return after
    out = np.empty_like(after)
    for start in range(0, len(after), _BAND_ROWS):
        rows = slice(start, start + _BAND_ROWS)
        low = before[rows].astype(np.float32)
        out[rows] = np.rint(low + np.float32(share) * (after[rows] - low))
    return out
