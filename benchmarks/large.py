"""Large images in bounded memory: peak above the idle process and time a megapixel.

    python -m benchmarks.large [--networks mirnet-s] [--megapixels 3 12 50] [--model FOLDER]

A photograph of the scikit-learn wheel, enlarged and darkened with sensor noise, a fresh process
each, with the default memory limit; tiles are compiled when they come for the second time. The
idle process has the network loaded and one image of 256x256 behind it; memory is the resident set
of the process, read every 10 ms. Time is that of the processor: on a busy machine it moves least.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import torch

from benchmarks.tiling import dark_photograph
from mirnet.inference import Enhancer
from mirnet.models import build

GIB = 2**30


class PeakMemory:
    """Largest resident set of this process while the block runs, in bytes."""

    def __enter__(self) -> PeakMemory:
        self._process = psutil.Process()
        self.idle = self.peak = self._process.memory_info().rss
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.01):
            self.peak = max(self.peak, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def measure(network: str, megapixels: float, model: Path | None) -> dict[str, object]:
    """One image in this process."""
    height = int((megapixels * 1e6 * 2 / 3) ** 0.5)
    pixels = dark_photograph(size=(height * 3 // 2, height))
    torch.manual_seed(0)
    enhancer = Enhancer.load(model) if model else Enhancer(build(network))
    enhancer(np.zeros((256, 256, 3), np.uint8))
    started, cpu = time.perf_counter(), time.process_time()
    with PeakMemory() as memory:
        enhancer(pixels)
    cpu = time.process_time() - cpu
    return {
        "network": str(model or network),
        "megapixels": round(pixels.size / 3e6, 2),
        "tile": enhancer.tile_shape(*pixels.shape[:2]),
        "peak_above_idle_gib": round((memory.peak - memory.idle) / GIB, 2),
        "wall_s": round(time.perf_counter() - started, 1),
        "cpu_s_per_megapixel": round(cpu * 3e6 / pixels.size, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", nargs="+", default=["mirnet-xs", "mirnet-s"])
    parser.add_argument("--megapixels", type=float, nargs="+", default=[3, 12, 50])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-large.json"))
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.networks[0], options.megapixels[0], options.model)))
        return
    rows = []
    extra = ["--model", str(options.model)] if options.model else []
    for network in options.networks:
        for size in options.megapixels:
            command = [sys.executable, __file__, "--one", "--networks", network]
            command += ["--megapixels", str(size), *extra]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
