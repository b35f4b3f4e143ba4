"""Whether an enhanced image is worse than its input. No reference is needed.

:func:`compare` measures the changes, :func:`find_harm` compares the measures with limits. Every
measure is 0 if the output equals the input:

===========  ==================================================================================
``darker``   relative loss of brightness: of mean luma or of the mean of all values, whichever
             is larger; negative if the image became brighter
``dimmed``   share of regions that lost more than 0.1 of luma, or half of it: a sky, a white
             background, a bar across a dark image
``order``    inversion of the order of brightness: the maximum by which the mean luma of the
             output falls from darker to clearly brighter parts of the input, over single
             pixels and over regions (0 to 1)
``tinted``   chroma gained by bright, neutral parts (0 to 1)
``clipped``  share of values (three per pixel) that are newly at an end of the range
``noisier``  noise beyond the gain in brightness, standard deviation of the luma
===========  ==================================================================================

Luma is Rec. 709 of the values as coded (no linearisation), 0 to 1. Large images are measured on
a grid of pixels, noise on patches at full resolution.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from mirnet.images.stats import noise_sigma, regions, to_luma, to_unit

Pixels = npt.NDArray[np.unsignedinteger[Any]]
Plane = npt.NDArray[np.float32]
Kind = Literal["darker", "dimmed", "order", "tinted", "clipped", "noisier"]

_SIDE = 384
# minimum difference of two parts for their order to count: luma, or in dark images a share of
# the range of the image, but never less than noise and rounding
_CLEARLY, _CLEARLY_OF_RANGE, _LEAST_CLEARLY = 0.1, 0.4, 0.02
# luma that a region may lose, and the share of its own luma, for regions darker than 0.1
_DIMMED, _DIMMED_SHARE = 0.1, 0.5
# below this luma, half of it is less than noise and rounding
_LEAST_LUMA = 0.02
# of the pixels; the last one for lamps
_QUANTILES = (*np.arange(0.04, 1, 0.04), 0.99)
# parts with fewer pixels are ignored
_LEAST_SHARE = 0.004
_BRIGHT, _NEUTRAL = 0.5, 0.05
_PATCH = 128
# of the luma, for images without noise: rounding to 8 bits, twice
_ROUNDING = 2 / 255 / np.sqrt(12)


@dataclass(frozen=True, slots=True)
class Change:
    """The measured change by kind of harm; see the module."""

    darker: float
    dimmed: float
    order: float
    tinted: float
    clipped: float
    noisier: float


HarmLimits = Mapping[Kind, float]
"""Limit of each measure; none for a kind that is not in it."""


@dataclass(frozen=True, slots=True)
class Harm:
    """The first limit that an output exceeds."""

    kind: Kind
    value: float
    limit: float

    @property
    def reason(self) -> str:
        """For the row of a manifest: ``harm: darker``."""
        return f"harm: {self.kind}"


def judge(before: Pixels, after: Pixels, limits: HarmLimits) -> Harm | None:
    """The harm done by an enhancement, if any.

    Args:
        before: (H, W, 3) RGB or (H, W) grey, unsigned integers with the full range of their type.
        after: of the same height and width.

    Raises:
        ValueError: they differ in size.
    """
    if before.shape[:2] != after.shape[:2]:
        raise ValueError(f"the output is {after.shape[:2]}, the input {before.shape[:2]}")
    return find_harm(compare(before, after), limits) if limits else None


def find_harm(change: Change, limits: HarmLimits) -> Harm | None:
    """The first kind, in the order of the limits, that exceeds its limit."""
    for kind, limit in limits.items():
        value = getattr(change, kind)
        if value > limit:
            return Harm(kind, value, limit)
    return None


def compare(before: Pixels, after: Pixels) -> Change:
    """Measure the changes between images of equal size."""
    step = max(1, -(-max(before.shape[:2]) // _SIDE))
    first, second = before[::step, ::step], after[::step, ::step]
    first_unit, second_unit = to_unit(first), to_unit(second)
    old, new = to_luma(first_unit), to_luma(second_unit)
    old_parts, new_parts = regions(old), regions(new)
    return Change(
        darker=max(_lost(old, new), _lost(first_unit, second_unit)),
        dimmed=float(_dimmed(old_parts, new_parts).mean()),
        order=max(_fall(old.ravel(), new.ravel()), _fall(old_parts, new_parts)),
        tinted=_tint(first_unit, second_unit, old),
        clipped=_added_clipping(first, second),
        noisier=_added_noise(before, after),
    )


def _lost(old: Plane, new: Plane) -> float:
    return 1 - _ratio(float(new.mean()), float(old.mean()))


def _dimmed(old: Plane, new: Plane) -> npt.NDArray[np.bool_]:
    """Which regions lost much luma, absolutely or relatively."""
    halved = (old > _LEAST_LUMA) & (new < _DIMMED_SHARE * old)
    return halved | (new < old - _DIMMED)


def _ratio(new: float, old: float) -> float:
    """A black input cannot become darker."""
    return new / old if old > 0 else 1.0


def _fall(old: Plane, new: Plane) -> float:
    """The maximum fall of the tone curve. A part is all pixels of about the same input luma."""
    edges = np.unique(np.quantile(old, _QUANTILES))
    part = np.searchsorted(edges, old, side="right")
    number = np.bincount(part)
    there = number >= max(1.0, _LEAST_SHARE * old.size)
    of_old = np.bincount(part, old)[there] / number[there]
    of_new = np.bincount(part, new)[there] / number[there]
    low, high = np.quantile(old, (0.01, 0.99))
    clearly = min(_CLEARLY, max(_LEAST_CLEARLY, _CLEARLY_OF_RANGE * float(high - low)))
    # [i, j]: part i is clearly brighter than part j
    brighter = of_old[:, None] - of_old[None, :] > clearly
    falls = np.where(brighter, of_new[None, :] - of_new[:, None], 0.0)
    return float(max(falls.max(initial=0.0), 0.0))


def _tint(first: Plane, second: Plane, old: Plane) -> float:
    """Chroma is the difference between the largest and the smallest mean of the channels."""
    if first.ndim == 2 or second.ndim == 2:
        return 0.0
    chosen = (old >= _BRIGHT) & (_chroma(first) <= _NEUTRAL)
    if chosen.mean() < _LEAST_SHARE:
        return 0.0
    return float((_chroma(second[chosen]) - _chroma(first[chosen])).mean())


def _chroma(unit: Plane) -> Plane:
    red, green, blue = unit[..., 0], unit[..., 1], unit[..., 2]
    largest = np.maximum(np.maximum(red, green), blue)
    chroma: Plane = largest - np.minimum(np.minimum(red, green), blue)
    return chroma


def _added_clipping(before: Pixels, after: Pixels) -> float:
    """Each end separately: lifted blacks do not compensate for clipped whites."""
    top = np.iinfo(after.dtype).max, np.iinfo(before.dtype).max
    whites = float((after == top[0]).mean() - (before == top[1]).mean())
    blacks = float((after == 0).mean() - (before == 0).mean())
    return max(0.0, whites) + max(0.0, blacks)


def _added_noise(before: Pixels, after: Pixels) -> float:
    """Mean over patches, each with its own gain."""
    added = []
    for rows, columns in _patches(*before.shape[:2]):
        old = to_luma(to_unit(before[rows, columns]))
        new = to_luma(to_unit(after[rows, columns]))
        gain = max(1.0, _ratio(float(new.mean()), float(old.mean())))
        added.append(noise_sigma(new) - gain * max(noise_sigma(old), _ROUNDING))
    return float(np.mean(added))


def _patches(height: int, width: int) -> list[tuple[slice, slice]]:
    """Five: in the middle and halfway to the corners."""
    tall, wide = min(height, _PATCH), min(width, _PATCH)
    places = [(0.5, 0.5), (0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]
    corners = {
        (round(down * (height - tall)), round(across * (width - wide))) for down, across in places
    }
    return [(slice(top, top + tall), slice(left, left + wide)) for top, left in sorted(corners)]
