"""Patches cut on a GPU from pairs that lie in its memory.

A step of a small network takes a few milliseconds there, less than the host needs to cut, convert
and copy its batch. LoL takes 0.7 GB. The patches are those of
:func:`mirnet.training.data.sampling.load_batch`, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mirnet.training.data.pairs import PackedPairs
from mirnet.training.data.sampling import Draw, corner, cut

MEMORY_SHARE = 0.25
"""Of the free memory of the device that the pairs may take."""
_CHUNK = 1 << 26


def fits(pairs: PackedPairs, device: torch.device) -> bool:
    """Whether the pairs are kept in the memory of the device."""
    if device.type != "cuda":
        return False
    free, _ = torch.cuda.mem_get_info(device)
    return pairs.pixels.nbytes <= MEMORY_SHARE * free


class DevicePairs:
    """Pairs in the memory of a device."""

    def __init__(self, pairs: PackedPairs, device: torch.device) -> None:
        self._pairs = pairs
        flat = torch.empty(pairs.pixels.size, dtype=torch.uint8, device=device)
        for start in range(0, flat.numel(), _CHUNK):
            # a copy, since the pack may be a read-only map of a file
            part = torch.from_numpy(pairs.pixels[start : start + _CHUNK].copy())
            flat[start : start + part.numel()] = part.to(device)
        self._colours = flat.view(-1, 3)
        areas = pairs.sizes.prod(axis=1)
        # of each pair's low, in pixels; its high lies one image behind
        self._starts = np.concatenate([[0], np.cumsum(2 * areas)])
        self._areas = areas

    def load_batch(self, draws: Sequence[Draw], *, patch_size: int) -> tuple[Tensor, Tensor]:
        """Low and high, float32 (N, 3, P, P) in [0, 1], RGB, channels last, on the device."""
        both = self._cut_all(draws, patch_size)
        partners = [draw.partner for draw in draws if draw.partner is not None]
        if partners:
            others = self._cut_all(partners, patch_size)
            weights = self._moved(np.array([draw.weight for draw in draws], np.float32))
            both = others + weights.view(1, -1, 1, 1, 1) * (both - others)
        low, high = both.permute(0, 1, 4, 2, 3)
        return low, high

    def _cut_all(self, draws: Sequence[Draw], patch_size: int) -> Tensor:
        """(2, N, P, P, 3): lows, then highs."""
        places = np.array([self._places(draw, patch_size) for draw in draws], np.int64)
        first, row, column = self._moved(places).T[..., None, None]
        steps = torch.arange(patch_size, device=self._colours.device)
        lows = first + row * steps[:, None] + column * steps
        to_high = self._moved(np.array([self._areas[draw.pair] for draw in draws], np.int64))
        patches = self._colours[torch.stack([lows, lows + to_high[:, None, None]])]
        for number, draw in enumerate(draws):
            if draw.light is not None:
                high = cut(self._pairs.pair(draw.pair)[1], draw, patch_size)
                patches[0, number] = self._moved(np.ascontiguousarray(draw.light.on(high)))
        return patches.float().div_(255)

    def _places(self, draw: Draw, patch_size: int) -> tuple[int, int, int]:
        """Place of the patch's first pixel, and the steps to its next row and column, in pixels."""
        height, width = (int(size) for size in self._pairs.sizes[draw.pair])
        top, left = corner(draw, height, width, patch_size)
        first, row, column = int(self._starts[draw.pair]) + top * width + left, width, 1
        if draw.symmetry & 4:
            row, column = column, row
        if draw.symmetry & 1:
            first, row = first + (patch_size - 1) * row, -row
        if draw.symmetry & 2:
            first, column = first + (patch_size - 1) * column, -column
        return first, row, column

    def _moved(self, values: NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(values).to(self._colours.device, non_blocking=True)
