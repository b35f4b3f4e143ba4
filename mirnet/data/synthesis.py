"""Dark pairs from well-lit photographs, reproducible by seed with any number of processes."""

from __future__ import annotations

import csv
import multiprocessing
import zlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mirnet.data.degradation import Degradation, DegradationRanges, Pixels, darken, draw
from mirnet.data.layout import PAIRS_TABLE
from mirnet.data.loading import pair_paths
from mirnet.images import read_rgb


@dataclass(frozen=True)
class Shot:
    pair_id: str
    source: str
    """Name of the photograph: pairs with the same source stay in one split."""
    source_path: Path
    size: int | None
    """Pixels, square crop; none: the whole photograph."""


def synthesize(
    shots: Sequence[Shot],
    dst: Path,
    *,
    seed: int,
    ranges: DegradationRanges,
    num_processes: int = 1,
) -> None:
    """Write low and high of every shot below ``dst``, and the table of their parameters.

    The table has pair, source, crop and the parameters of the degradation; those that are as by
    default in all pairs (no cast, one tone curve, no well-lit pair) have no column.

    Raises:
        ImageError: a photograph cannot be read; names it.
    """
    make = partial(_make, dst=dst, seed=seed, ranges=ranges)
    if num_processes <= 1:
        rows = [make(shot) for shot in shots]
    else:
        # spawn: the caller may have threads of torch or MLflow, which a fork would break
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
            rows = list(pool.map(make, shots, chunksize=4))
    plain = [
        name
        for name, info in Degradation.model_fields.items()
        if not info.is_required() and all(row[name] == _written(info.default) for row in rows)
    ]
    with (dst / PAIRS_TABLE).open("w", newline="", encoding="utf-8") as file:
        names = [name for name in rows[0] if name not in plain]
        writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _make(shot: Shot, *, dst: Path, seed: int, ranges: DegradationRanges) -> dict[str, object]:
    # from the name, not from the order: adding a photograph changes no other pair
    rng = np.random.default_rng([seed, zlib.crc32(shot.pair_id.encode())])
    how = draw(ranges, rng)
    high, box = _crop(read_rgb(shot.source_path), shot.size, rng)
    low = darken(high, how, rng)
    for path, pixels in zip(pair_paths(dst, shot.pair_id), (low, high), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, "PNG", compress_level=1)
    return {"pair": shot.pair_id, "source": shot.source, "crop": box, **_rounded(how)}


def _crop(photo: Pixels, size: int | None, rng: np.random.Generator) -> tuple[Pixels, str]:
    """A random square crop, downscaled to ``size``; never enlarged."""
    height, width = photo.shape[:2]
    if size is None:
        return photo, f"0+0+{width}x{height}"
    smaller = min(height, width)
    side = int(rng.integers(min(size, smaller), smaller, endpoint=True))
    top = int(rng.integers(0, height - side, endpoint=True))
    left = int(rng.integers(0, width - side, endpoint=True))
    patch = photo[top : top + side, left : left + side]
    if side != size:
        patch = np.asarray(Image.fromarray(patch).resize((size, size), Image.Resampling.LANCZOS))
    return patch, f"{left}+{top}+{side}x{side}"


def _rounded(how: Degradation) -> dict[str, object]:
    return {key: _written(value) for key, value in how.model_dump().items()}


def _written(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value
