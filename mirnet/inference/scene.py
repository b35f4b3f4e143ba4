"""Whether photographs show one scene, and how bright they come out next to each other.

They are compared by thumbnails of the logarithm of linear luma, without its mean: another exposure
adds a constant to a logarithm, so the correlation stays. Of 48 dark LoL images the seven pairs of
one scene have 0.96 and more and all others at most 0.72; of 32 night photographs (DICM) the most
alike have 0.89.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mirnet.images import Pixels, Seen
from mirnet.images.image import THUMBNAIL_SIDE
from mirnet.images.stats import to_luma
from mirnet.inference.light import gain_for, grid, linear, mean_luma

# linear luma, about a level of 8 bits: noise around black is no scene
_FLOOR = 3e-4
_FLAT = 1e-6
# correlation from which images count as one scene at all, and from which they count fully
_ALIKE, _SAME = 0.9, 0.95
# a pull by neighbours; a person's own choice of exposure may be larger
_MOST_STOPS = 2.0


def seen(before: Pixels, output: Pixels, share: float) -> Seen:
    """What later images need of an input (H, W, 3) and the network's output.

    Args:
        output: of the same height and width; the input if the network does not run.
        share: of the output in what is written; the rest is the input.
    """
    low, high = mean_luma(before), mean_luma(output)
    return Seen(_thumbnail(before), low + share * (high - low))


def even_stops(output: Pixels, own: Seen, before: Sequence[Seen]) -> float:
    """Stops that bring an output to the mean brightness of it and of its scene before it.

    Weighted by likeness; at most two stops, and 0 where nothing before it is of its scene.

    Args:
        output: the network's, (H, W, 3).
    """
    weights = [_likeness(own, each) for each in before]
    if not any(weights):
        return 0.0
    pulls = [
        weight * (each.brightness - own.brightness)
        for weight, each in zip(weights, before, strict=True)
    ]
    target = mean_luma(output) + sum(pulls) / (1 + sum(weights))
    return math.log2(gain_for(output, target, max_stops=_MOST_STOPS))


def _likeness(one: Seen, other: Seen) -> float:
    """0: two scenes, 1: one."""
    correlation = float(np.dot(one.thumbnail, other.thumbnail))
    return min(1.0, max(0.0, (correlation - _ALIKE) / (_SAME - _ALIKE)))


def _thumbnail(pixels: Pixels) -> tuple[float, ...]:
    luma = to_luma(linear(grid(pixels))).astype(np.float64)
    small = np.log(_reduced(_reduced(luma).T).T + _FLOOR)
    small -= small.mean()
    norm = float(np.linalg.norm(small))
    return tuple((small / norm if norm > _FLAT else np.zeros_like(small)).ravel().tolist())


def _reduced(plane: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(H, W) -> (side, W): means of parts of at least one row."""
    tops = np.arange(THUMBNAIL_SIDE) * len(plane) // THUMBNAIL_SIDE
    ends = np.maximum(np.append(tops[1:], len(plane)), tops + 1)
    return np.stack([plane[top:end].mean(axis=0) for top, end in zip(tops, ends, strict=True)])
