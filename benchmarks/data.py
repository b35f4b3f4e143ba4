"""The gate: seconds and memory, and where its thresholds come from.

    python -m benchmarks.data gate --pairs 1000     # cold, then cached
    python -m benchmarks.data gate --pairs 10000    # growth
    python -m benchmarks.data thresholds DIR ...    # real pairs in the LoL layout

Pairs are 600x400 PNG, crops of the sample photographs, darkened; every file has its own pixels.
Targets on two cores: a manifest of 1,000 files in 30 s cold and 3 s cached.
"""

from __future__ import annotations

import argparse
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

from benchmarks import data_thresholds
from mirnet.config import apply_engine_defaults
from mirnet.data.degradation import DegradationRanges, darken, draw
from mirnet.data.layout import EVAL_SPLIT, SIDES, TRAIN_SPLIT
from mirnet.data.manifest import build_manifest
from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.images import read_rgb
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
    """Manifest cold and cached, then the suite."""
    from mirnet.data.validation import judge

    cache = work_dir / "cache"
    figures = timed("cold", lambda: build_manifest(root, cache_dir=cache))
    figures |= timed("cached", lambda: build_manifest(root, cache_dir=cache))
    manifest = build_manifest(root, cache_dir=cache)
    figures |= timed("suite", lambda: judge(manifest, ValidateParams()))
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


def main() -> None:
    apply_engine_defaults()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gate").add_argument("--pairs", type=int, default=1000)
    commands.add_parser("measure").add_argument("root", type=Path)
    derive = commands.add_parser("thresholds")
    derive.add_argument("folders", type=Path, nargs="+")
    derive.add_argument("--image", type=Path, help="histograms of the first folder")
    options = parser.parse_args()
    if options.command == "gate":
        gate(options.pairs)
    elif options.command == "measure":
        print(json.dumps(measure_gate(options.root, options.root.parent)))
    else:
        for number, folder in enumerate(options.folders):
            data_thresholds.report(folder, None if number else options.image)


if __name__ == "__main__":
    main()
