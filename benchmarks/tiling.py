"""How a large image is best cut up: the figures and the image of docs/benchmarks/large-images.md.

    python -m benchmarks.tiling --model model [--pairs LOL/our485] [--image docs/images/tiles.jpg]
    python -m benchmarks.tiling --model model --all

A photograph of the sample data, enlarged to 2 megapixels and darkened with sensor noise, goes
through the network whole and in tiles whose global statistics come from different places. With
--all every photograph does, whole and in tiles as the enhancer takes them.
With pairs: what local statistics (TLC, Chu et al., ECCV 2022) do to PSNR.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.images import read_rgb
from mirnet.inference import Enhancer
from mirnet.inference.crop_statistics import downscaled, downscaling
from mirnet.inference.tiles import tiles
from mirnet.models import Network, load_model
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling, RecordedPooling
from mirnet.models.margin import extended
from mirnet.models.registry import by_family

TILE = 640  # memory for a tile of that side
SIZE = (1740, 1160)


class LocalStatistics(GlobalPooling):
    """TLC: each pixel averages over a window around it, ``size`` pixels at full resolution."""

    def __init__(self, size: int, *, height: int) -> None:
        self.size, self.height = size, height

    def mean(self, *streams: Tensor) -> Tensor:
        return sum((self._local(stream) for stream in streams[1:]), self._local(streams[0]))

    def _local(self, x: Tensor) -> Tensor:
        side = max(round(self.size * x.shape[2] / self.height), 1)
        return _window_means(_window_means(x, side, dim=2), side, dim=3)


def _window_means(x: Tensor, side: int, *, dim: int) -> Tensor:
    """Means over windows of ``side`` along one axis, moved inwards at the ends."""
    size = x.shape[dim]
    side = min(side, size)
    sums = x.double().cumsum(dim)
    sums = torch.cat((torch.zeros_like(sums.narrow(dim, 0, 1)), sums), dim)
    means = (sums.narrow(dim, side, size - side + 1) - sums.narrow(dim, 0, size - side + 1)) / side
    starts = (torch.arange(size) - side // 2).clamp(0, size - side)
    return means.index_select(dim, starts).to(x.dtype)


def dark_photograph(name: str = "china", size: tuple[int, int] = SIZE) -> np.ndarray:
    """A photograph of the sample data, enlarged and darkened: (H, W, 3) uint8."""
    (found,) = (photo for photo in PHOTOGRAPHS if photo.name == name)
    photo = Image.fromarray(read_rgb(photograph_path(found))).resize(size, Image.Resampling.BICUBIC)
    rng = np.random.default_rng(0)
    light = (np.asarray(photo) / 255.0) ** 2.2 * 0.1
    light = light + rng.normal(size=light.shape) * np.sqrt(light * 1e-3 + 1e-6)
    return (np.clip(light, 0, 1) ** (1 / 2.2) * 255).round().astype(np.uint8)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def border_columns(width: int, height: int, tile: int = TILE) -> list[int]:
    """First columns of the tiles but the first."""
    known = by_family("mirnet")
    found = tiles(height, width, max_pixels=tile**2, halo=known.halo, margin=known.margin)
    return sorted({columns.keep_start for _, columns in found} - {0})


def border_steps(image: np.ndarray, tile: int = TILE) -> tuple[float, float]:
    """Mean difference of neighbouring columns across tile borders, and everywhere else."""
    differences = np.abs(np.diff(image.astype(np.float64), axis=1)).mean(axis=(0, 2))
    borders = np.array(border_columns(image.shape[1], image.shape[0], tile)) - 1
    elsewhere = np.delete(differences, borders)
    return float(differences[borders].mean()), float(elsewhere.mean())


def as_batch(pixels: np.ndarray) -> Tensor:
    image = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return extended(image, margin=0, multiple=4, least=8)


def as_pixels(batch: Tensor) -> np.ndarray:
    return (batch[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)


def compare_tiles(
    model: Network, pixels: np.ndarray, *, factors: list[int]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    whole_enhancer = Enhancer(model, precision="float32", compile=False)
    whole_enhancer.max_pixels = pixels.size
    started = time.process_time()
    whole = whole_enhancer(pixels)
    results: dict[str, Any] = {"whole_cpu_s": time.process_time() - started, "psnr_db": {}}
    tiled = Enhancer(model, precision="float32", compile=False)
    tiled.max_pixels = TILE**2
    started = time.process_time()
    images = {"whole": whole, "tiled": tiled(pixels)}
    results["tiled_cpu_s"] = time.process_time() - started
    for factor in factors:
        recorded = RecordedPooling(FULL_IMAGE)
        small = F.interpolate(as_batch(pixels), scale_factor=1 / factor, mode="area")
        with torch.inference_mode():
            model(extended(small, margin=model.margin, multiple=4), recorded)
        with patch.object(tiled, "_statistics", return_value=recorded.values):
            images[f"downscaled by {factor}"] = tiled(pixels)
    with patch.object(tiled, "_statistics", return_value=None):
        images["each tile its own"] = tiled(pixels)
    for name, image in images.items():
        if name != "whole":
            results["psnr_db"][name] = psnr(image, whole)
    for name in ("whole", "tiled", "each tile its own"):
        at, elsewhere = border_steps(images[name])
        results[f"border_step {name}"] = {"across_borders": at, "elsewhere": elsewhere}
    return results, images


def compare_photographs(model: Network, *, tile: int) -> dict[str, dict[str, float]]:
    """Every photograph of the sample data: the tiled against the whole image, also with the
    statistics of the smaller copy alone.
    """
    whole = Enhancer(model, precision="float32", compile=False)
    whole.max_pixels = 2 * SIZE[0] * SIZE[1]
    tiled = Enhancer(model, precision="float32", compile=False)
    tiled.max_pixels = tile**2
    rows = {}
    for photo in PHOTOGRAPHS:
        pixels = dark_photograph(photo.name)
        images = whole(pixels), tiled(pixels)
        steps = [border_steps(image, tile) for image in images]
        rows[photo.name] = {
            "psnr_db": round(psnr(images[1], images[0]), 1),
            "border_step_tiled": round(steps[1][0], 3),
            "border_step_whole": round(steps[0][0], 3),
        }
        factor = downscaling(*pixels.shape[:2], max_pixels=tile**2, margin=tiled.margin)
        copy = downscaled(pixels, factor, tiled.architecture, margin=tiled.margin)
        values = tiled._statistics_of(copy, FULL_IMAGE)
        with patch.object(tiled, "_statistics", lambda _, values=values: values):
            rows[photo.name]["psnr_db_copy_alone"] = round(psnr(tiled(pixels), images[0]), 1)
        print(photo.name, rows[photo.name], flush=True)
    return rows


def local_statistics(model: Network, pairs: Path, *, count: int) -> dict[str, float]:
    """Mean PSNR over the last pairs of the folder, with global and local statistics."""
    names = sorted(p.name for p in (pairs / "low").iterdir())[-count:]
    scores: dict[str, list[float]] = {}
    for name in names:
        low, high = read_rgb(pairs / "low" / name), read_rgb(pairs / "high" / name)
        batch = as_batch(low)
        sources: dict[str, GlobalPooling] = {"global": FULL_IMAGE}
        for size in (192, 384):
            sources[f"local {size}"] = LocalStatistics(size, height=batch.shape[2])
        for kind, source in sources.items():
            with torch.inference_mode():
                out = as_pixels(model(batch, source))
            scores.setdefault(kind, []).append(psnr(out[: low.shape[0], : low.shape[1]], high))
    return {kind: float(np.mean(values)) for kind, values in scores.items()}


def draw(images: dict[str, np.ndarray], path: Path) -> None:
    """A crop around a tile border: whole, tiled, each tile its own; differences times 20."""
    height, width = images["whole"].shape[:2]
    top, left, side = 400, border_columns(width, height)[0] - 150, 300
    crop = {k: v[top : top + side, left : left + side] for k, v in images.items()}
    rows = []
    for name in ("tiled", "each tile its own"):
        difference = np.abs(crop[name].astype(int) - crop["whole"]) * 20
        rows.append(
            np.hstack([crop["whole"], crop[name], difference.clip(0, 255).astype(np.uint8)])
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.vstack(rows)).save(path, quality=88)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=Path("model"))
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--count", type=int, default=5)
    parser.add_argument("--downscaled", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--all", action="store_true", help="every photograph of the sample data")
    parser.add_argument("--tile", type=int, default=TILE, help="of --all: memory for that side")
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-tiling.json"))
    options = parser.parse_args()
    model = load_model(options.model)
    if options.all:
        compare_photographs(model, tile=options.tile)
        return
    results, images = compare_tiles(model, dark_photograph(), factors=options.downscaled)
    if options.picture:
        draw(images, options.picture)
    print(json.dumps(results, indent=2), flush=True)
    if options.pairs:
        results["local_statistics_psnr_db"] = local_statistics(
            model, options.pairs, count=options.count
        )
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
