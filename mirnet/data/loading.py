"""Pixels of named pairs, decoded in parallel."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mirnet.data.layout import SIDES
from mirnet.errors import DataError
from mirnet.images import read_rgb

Pixels = npt.NDArray[np.uint8]


def pair_paths(root: Path, pair_id: str) -> tuple[Path, Path]:
    """Low and high file of ``our485/1.png``.

    Raises:
        DataError: the id has no split, or leads out of the data set.
    """
    split, slash, name = pair_id.partition("/")
    if not slash or not name or "/" in name or ".." in (split, name):
        raise DataError(f"{pair_id!r} is no pair id; they look like our485/1.png")
    low, high = (root / split / side / name for side in SIDES)
    return low, high


def load_pairs(
    root: Path, pair_ids: Sequence[str], *, num_threads: int = 4
) -> list[tuple[Pixels, Pixels]]:
    """Low and high of each pair, uint8 RGB (H, W, 3), in the order of the ids.

    Uses threads: decoders release the interpreter lock.

    Raises:
        ImageError: a file is missing or not an RGB image; names it.
        DataError: the sides of a pair differ in size; names the pair.
    """
    paths = [path for pair_id in pair_ids for path in pair_paths(root, pair_id)]
    with ThreadPoolExecutor(max_workers=max(1, num_threads)) as pool:
        images = list(pool.map(read_rgb, paths))
    pairs = list(zip(images[::2], images[1::2], strict=True))
    for pair_id, (low, high) in zip(pair_ids, pairs, strict=True):
        if low.shape != high.shape:
            raise DataError(f"{pair_id}: low is {_size(low)}, high is {_size(high)}")
    return pairs


def _size(pixels: Pixels) -> str:
    return f"{pixels.shape[1]}x{pixels.shape[0]}"
