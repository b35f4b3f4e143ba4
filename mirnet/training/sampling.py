"""Which patch every sample of every step is: a function of (seed, global step) alone.

Neither the number of workers nor an interruption changes it, so one worker and eight, resumed
and uninterrupted, see the same patches.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirnet.training.pairs import PackedPairs

_ORDER, _CROPS = 0, 1


@dataclass(frozen=True)
class Draw:
    """One sample: a pair, where the crop lies (0 to 1 of the free range), and its symmetry."""

    pair: int
    top: float
    left: float
    symmetry: int


def draw_batch(*, seed: int, step: int, batch_size: int, num_pairs: int) -> list[Draw]:
    """The samples of a global batch. Every pair once before any pair a second time."""
    rng = np.random.default_rng((seed, _CROPS, step))
    corners = rng.random((batch_size, 2))
    symmetries = rng.integers(0, 8, batch_size)
    first = step * batch_size
    order = _pair_order(seed=seed, first=first, count=batch_size, num_pairs=num_pairs)
    return [
        Draw(pair, float(corners[i, 0]), float(corners[i, 1]), int(symmetries[i]))
        for i, pair in enumerate(order)
    ]


def _pair_order(*, seed: int, first: int, count: int, num_pairs: int) -> list[int]:
    """Positions ``first..first+count`` of an endless chain of permutations."""
    rounds = range(first // num_pairs, (first + count - 1) // num_pairs + 1)
    chain = np.concatenate(
        [np.random.default_rng((seed, _ORDER, r)).permutation(num_pairs) for r in rounds]
    )
    start = first - rounds.start * num_pairs
    return [int(index) for index in chain[start : start + count]]


def share(batch_size: int, *, rank: int, world_size: int) -> slice:
    """The part of a global batch that a worker takes; sizes differ by at most one."""
    return slice(batch_size * rank // world_size, batch_size * (rank + 1) // world_size)


def load_batch(
    pairs: PackedPairs, draws: Sequence[Draw], *, patch_size: int
) -> tuple[Tensor, Tensor]:
    """Cut the patches: low and high, float32 (N, 3, P, P) in [0, 1], RGB, channels last."""
    shape = (len(draws), 2, patch_size, patch_size, 3)
    patches = np.empty(shape, np.uint8)
    for patch, draw in zip(patches, draws, strict=True):
        for out, image in zip(patch, pairs.pair(draw.pair), strict=True):
            out[:] = cut(image, draw, patch_size)
    both = torch.from_numpy(patches).permute(1, 0, 4, 2, 3).float().div_(255)
    return both[0], both[1]


def cut(image: NDArray[np.uint8], draw: Draw, patch_size: int) -> NDArray[np.uint8]:
    """One square crop, HWC, in one of the eight symmetries of the square."""
    height, width = image.shape[:2]
    top = int(draw.top * (height - patch_size + 1))
    left = int(draw.left * (width - patch_size + 1))
    crop = image[top : top + patch_size, left : left + patch_size]
    if draw.symmetry & 4:
        crop = crop.transpose(1, 0, 2)
    vertical = slice(None, None, -1) if draw.symmetry & 1 else slice(None)
    horizontal = slice(None, None, -1) if draw.symmetry & 2 else slice(None)
    return crop[vertical, horizontal]
