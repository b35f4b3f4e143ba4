"""How patches reach a step: ``python -m benchmarks.training_data [--pairs 48] [--json FILE]``.

One pass of random crops over the same PNG pairs of 600x400, batch 4 of 160x160, from memory, from a
mapped pack, from Ray's object store, and streamed by Ray Data, which decodes in every epoch.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import ray
from PIL import Image

from mirnet.config import Settings, apply_engine_defaults
from mirnet.data.loading import load_pairs
from mirnet.params import TrainParams
from mirnet.ray_session import ray_session
from mirnet.training.data.packs import pack_on_disk
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.data.sampling import Draw, Sampler, cut, load_batch

BATCH, PATCH = 4, 160


def write_pairs(root: Path, count: int) -> list[str]:
    rng = np.random.default_rng(0)
    for side in ("low", "high"):
        (root / "our485" / side).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (50, 75, 3), dtype=np.uint8))
        high = np.asarray(coarse.resize((600, 400), Image.Resampling.BICUBIC))
        noisy = np.clip(high + rng.normal(0, 4, high.shape), 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "our485" / "high" / f"{number}.png")
        Image.fromarray(noisy // 8).save(root / "our485" / "low" / f"{number}.png")
    return [f"our485/{number}.png" for number in range(count)]


def patches_per_s(batches: Callable[[], Iterator[object]], count: int) -> float:
    started = time.perf_counter()
    for _ in batches():
        pass
    return count / (time.perf_counter() - started)


def from_packed(pairs: PackedPairs, epochs: int) -> Callable[[], Iterator[object]]:
    def batches() -> Iterator[object]:
        steps = epochs * len(pairs) // BATCH
        recipe = TrainParams(batch_size=BATCH, patch_size=PATCH)
        sampler = Sampler(recipe, num_pairs=len(pairs), total_steps=steps)
        for step in range(steps):
            yield load_batch(pairs, sampler.draws(step), patch_size=PATCH)

    return batches


def streamed(root: Path, names: list[str], epochs: int) -> Callable[[], Iterator[object]]:
    def crop(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        rng = np.random.default_rng()
        sides: list[list[np.ndarray]] = [[], []]
        for pair in load_pairs(root, [str(name) for name in batch["item"]], num_threads=1):
            draw = Draw(0, rng.random(), rng.random(), int(rng.integers(8)))
            for side, image in zip(sides, pair, strict=True):
                side.append(cut(image, draw, PATCH).astype(np.float32).transpose(2, 0, 1) / 255)
        return {"low": np.stack(sides[0]), "high": np.stack(sides[1])}

    def batches() -> Iterator[object]:
        for _ in range(epochs):
            data = ray.data.from_items(names).map_batches(crop, batch_size=BATCH)
            yield from data.iter_torch_batches(batch_size=BATCH)

    return batches


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=48)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    apply_engine_defaults()
    count, epochs = arguments.pairs, arguments.epochs
    patches = count * epochs
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        names = write_pairs(root, count)
        started = time.perf_counter()
        memory = pack_pairs(names, load_pairs(root, names))
        decode_s = time.perf_counter() - started
        mapped = pack_on_disk(names, lambda part: load_pairs(root, part), root / "pack")
        results = {
            "decode_s_a_pair": decode_s / count,
            "memory": patches_per_s(from_packed(memory, epochs), patches),
            "mapped": patches_per_s(from_packed(mapped, epochs), patches),
        }
        with ray_session(Settings(), num_cpus=2, object_store_bytes=memory.pixels.nbytes * 3):
            shared = ray.get(ray.put(memory.pixels))
            store = PackedPairs(memory.names, memory.sizes, shared)
            results["object_store"] = patches_per_s(from_packed(store, epochs), patches)
            results["ray_data"] = patches_per_s(streamed(root, names, epochs), patches)
    for key, value in results.items():
        print(f"{key:16} {value:10.3f}" + ("" if key.endswith("pair") else " patches/s"))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
