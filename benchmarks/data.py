"""The gate: seconds and memory, and where its thresholds come from.

    python benchmarks/data.py gate --pairs 1000     # cold, then cached
    python benchmarks/data.py gate --pairs 10000    # growth
    python benchmarks/data.py thresholds DIR ...    # real pairs in the LoL layout

Pairs are 600x400 PNG, crops of the sample photographs, darkened; every file has its own pixels.
Targets on two cores: a manifest of 1,000 files in 30 s cold and 3 s cached.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from mirnet.config import apply_engine_defaults
from mirnet.data.alignment import align
from mirnet.data.degradation import DegradationRanges, darken, draw
from mirnet.data.layout import EVAL_SPLIT, SIDES, TRAIN_SPLIT, find_pairs
from mirnet.data.manifest import build_manifest
from mirnet.data.measures import luminance, measure_file
from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.data.scenes import similarity
from mirnet.images import MAX_PIXELS, read_rgb
from mirnet.params import ValidateParams

WIDTH, HEIGHT = 600, 400
_SCENES = 400
"""Different references; the rest repeat them in other light, as LoL does."""


def make_pair(number: int, root: Path, num_pairs: int) -> None:
    """One pair: a crop of a photograph, mirrored or not, darkened."""
    rng = np.random.default_rng(number % _SCENES)
    photo = Image.fromarray(read_rgb(photograph_path(PHOTOGRAPHS[number % len(PHOTOGRAPHS)])))
    side = rng.uniform(0.45, 0.75)
    left, top = rng.uniform(0, 1 - side, 2)
    box = (left, top, left + side, top + side)
    corners = [edge * photo.size[i % 2] for i, edge in enumerate(box)]
    part = photo.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC, box=tuple(corners))
    high = np.asarray(part)[:, :: -1 if number % 2 else 1].copy()
    high[0, 0] = (number % 251, number // 251 % 251, 7)
    rng = np.random.default_rng([1, number])
    low = darken(high, draw(DegradationRanges(), rng), rng)
    split = EVAL_SPLIT if number < num_pairs * 0.03 else TRAIN_SPLIT
    for name, pixels in zip(SIDES, (low, high), strict=True):
        path = root / split / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, compress_level=1)


def timed(label: str, work: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds, and the peak of this process so far."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        f"{label}_s": round(time.perf_counter() - wall, 2),
        f"{label}_cpu_s": round(time.process_time() - cpu, 2),
        f"{label}_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }


def measure_gate(root: Path, work_dir: Path) -> dict[str, float]:
    """Manifest cold and cached, then the suite with its pages."""
    from mirnet.data.validation import judge

    cache = work_dir / "cache"
    figures = timed("cold", lambda: build_manifest(root, cache_dir=cache))
    figures |= timed("cached", lambda: build_manifest(root, cache_dir=cache))
    manifest = build_manifest(root, cache_dir=cache)
    figures |= timed("suite", lambda: judge(manifest, ValidateParams(), docs_dir=work_dir / "docs"))
    return figures


def gate(num_pairs: int) -> None:
    """Make the pairs, then measure in a fresh process."""
    with tempfile.TemporaryDirectory(prefix="mirnet-bench-") as folder:
        root = Path(folder) / "data"
        with ProcessPoolExecutor() as pool:
            list(pool.map(partial(make_pair, root=root, num_pairs=num_pairs), range(num_pairs)))
        command = [sys.executable, __file__, "measure", str(root)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    load = round(os.getloadavg()[0], 1)
    print(json.dumps({"pairs": num_pairs, "cores": os.cpu_count(), "load": load} | figures))


def thumb_of(path: Path, cropped: float = 0.0) -> bytes:
    """Thumbnail of a picture, or of a crop of it that was halved and encoded as JPEG."""
    picture = Image.fromarray(read_rgb(path))
    if cropped:
        width, height = picture.size
        corner = picture.crop((int(width * cropped), 0, width, int(height * (1 - cropped))))
        buffer = io.BytesIO()
        corner.resize((width // 2, height // 2)).save(buffer, "JPEG", quality=60)
        picture = Image.open(buffer)
    grey = luminance(np.asarray(picture.convert("RGB")))
    return (
        np.asarray(Image.fromarray(grey).resize((64, 64), Image.Resampling.BOX))
        .astype(np.uint8)
        .tobytes()
    )


def thresholds(folders: list[Path]) -> None:
    """Aligned pairs, made shifts and unrelated pairs, side by side."""
    for folder in folders:
        pairs = find_pairs(folder)
        measured = [
            [measure_file(path, max_pixels=MAX_PIXELS) for path in (p.low_path, p.high_path)]
            for p in pairs
        ]
        lows, highs = ([one[side][1] for one in measured] for side in (0, 1))
        own = [align(low, high) for low, high in zip(lows, highs, strict=True)]
        order = sorted(range(len(own)), key=lambda i: own[i].alignment)
        print(f"{folder}: {len(pairs)} pairs")
        for i in order[:4]:
            print(f"  least aligned {pairs[i].id}: {own[i]}")
        good = [i for i in order if own[i].alignment >= ValidateParams().min_alignment]
        moved = [max(abs(own[i].shift_x), abs(own[i].shift_y)) for i in good]
        print(f"  largest shift of an aligned pair: {max(moved):.2f} px")
        gains = [own[i].alignment - own[i].in_place for i in good]
        print(f"  largest gain of an aligned pair by a shift: {max(gains):.3f}")
        for shift in (2, 3, 5):
            moved_pairs = [align(lows[i][shift:], highs[i][:-shift]) for i in good]
            seen = sum(abs(one.shift_y) > ValidateParams().max_shift for one in moved_pairs)
            gains = [one.alignment - one.in_place for one in moved_pairs]
            print(f"  made shift of {shift} px: {seen} of {len(good)} seen, gain {min(gains):.3f}")
        rivals = [
            align(lows[i], highs[j]).alignment
            for i, j in itertools.product(range(len(pairs)), range(0, len(pairs), 3))
            if abs(i - j) > 3 and lows[i].shape == highs[j].shape
        ]
        print(f"  unrelated: {len(rivals)} couples, largest correlation {max(rivals):.3f}")
        darkest = sorted(
            (one[0][0].p99, pair.id) for one, pair in zip(measured, pairs, strict=True)
        )
        print(f"  darkest lows, 99th percentile: {darkest[:5]}")
        white = sorted(
            (one[1][0].clipped, pair.id) for one, pair in zip(measured, pairs, strict=True)
        )
        print(f"  whitest highs, share of white: {white[-3:]}")
        thumbs = [one[1][0].thumb for one in measured]
        made = [
            (similarity(thumb_of(p.high_path), thumb_of(p.high_path, 0.15)), p.id) for p in pairs
        ]
        print(f"  least alike after crop of 15 %, half size, JPEG 60: {sorted(made)[:3]}")
        alike = sorted(
            (similarity(thumbs[i], thumbs[j]), pairs[i].id, pairs[j].id)
            for i, j in itertools.combinations(range(len(pairs)), 2)
        )
        gap = max(
            range(1, len(alike)),
            key=lambda k: alike[k][0] - alike[k - 1][0] if alike[k][0] > 0.8 else 0,
        )
        print(f"  most alike scenes: {alike[-8:]}")
        print(f"  widest gap: {alike[gap - 1]} to {alike[gap]}")


def main() -> None:
    apply_engine_defaults()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gate").add_argument("--pairs", type=int, default=1000)
    commands.add_parser("measure").add_argument("root", type=Path)
    commands.add_parser("thresholds").add_argument("folders", type=Path, nargs="+")
    options = parser.parse_args()
    if options.command == "gate":
        gate(options.pairs)
    elif options.command == "measure":
        print(json.dumps(measure_gate(options.root, options.root.parent)))
    else:
        thresholds(options.folders)


if __name__ == "__main__":
    main()
