"""Pairs decoded once and packed into one flat array, shared by workers without copies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirnet.errors import DataError

Pixels = NDArray[np.uint8]

REPLAYED = "replay/"
"""Begins the names of pairs of an earlier data set."""


@dataclass(frozen=True)
class PackedPairs:
    """Pairs of one role; ``pixels`` may be read-only memory that other processes map too.

    Attributes:
        names: pair ids, in the order of the indices.
        sizes: (N, 2) int64, height and width of each pair.
        pixels: flat uint8; low then high of each pair, HWC RGB.
        folder: the pack on this disk that ``pixels`` maps (:mod:`mirnet.training.data.packs`).
    """

    names: tuple[str, ...]
    sizes: NDArray[np.int64]
    pixels: Pixels
    folder: Path | None = None

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        lengths = 2 * 3 * self.sizes.prod(axis=1)
        return np.concatenate([[0], np.cumsum(lengths)])

    def pair(self, index: int) -> tuple[Pixels, Pixels]:
        """Views of low and high, uint8 HWC RGB."""
        height, width = self.sizes[index]
        length = int(height * width * 3)
        start = int(self._starts[index])
        both = self.pixels[start : start + 2 * length].reshape(2, height, width, 3)
        return both[0], both[1]


def pack_pairs(names: Sequence[str], pairs: Sequence[tuple[Pixels, Pixels]]) -> PackedPairs:
    """Pack decoded pairs.

    Raises:
        DataError: low and high of a pair differ in size; names the pair.
    """
    for name, (low, high) in zip(names, pairs, strict=True):
        if low.shape != high.shape:
            raise DataError(f"{name}: low is {low.shape[:2]}, high is {high.shape[:2]}")
    sizes = np.array([low.shape[:2] for low, _ in pairs], np.int64).reshape(-1, 2)
    flat = [image.reshape(-1) for pair in pairs for image in pair]
    pixels = np.concatenate(flat) if flat else np.empty(0, np.uint8)
    return PackedPairs(tuple(names), sizes, pixels)


def check_patch_fits(pairs: PackedPairs, patch_size: int) -> None:
    """Raise DataError, naming the pair, if a pair is smaller than a patch."""
    for name, (height, width) in zip(pairs.names, pairs.sizes, strict=True):
        if min(height, width) < patch_size:
            raise DataError(
                f"{name} is {width}x{height}, smaller than a patch of {patch_size}: "
                "lower train.patch_size (and train.progressive), or remove the pair"
            )
