"""The frame of enhanced images: how bright each ring of pixels is, from the border inwards.

    python -m benchmarks.frame MODEL LOL/our485 [--splits splits.json] [--count 48]

The mean luma of a ring of the enhanced image over that of the reference, as a mean over the
images. Ring 0 is the outermost; without a frame it is as bright as ring 16. ``worst side`` is
the one of top, bottom, left and right whose outermost line is farthest from the line 16 inwards.
``bare`` is the network alone, which is given the image and nothing around it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mirnet.evaluation.metrics import luma, psnr
from mirnet.images import Image, read_rgb
from mirnet.inference import Enhancer
from mirnet.inference.passes import MIN_TILE_PIXELS
from mirnet.models import export, load_model
from mirnet.models.margin import extended

Pixels = npt.NDArray[np.uint8]
Enhance = Callable[[Pixels], Pixels]

RINGS = (0, 1, 2, 4, 8, 12, 16, 24)
INNER = RINGS.index(16)
SMALL = 120  # side of the images that go in batches: larger ones go one by one


def lines(picture: Pixels, ring: int) -> npt.NDArray[np.float64]:
    """Mean luma of a ring's top, bottom, left and right line."""
    grey = luma(picture)
    inner = grey[ring : grey.shape[0] - ring, ring : grey.shape[1] - ring]
    return np.array([side.mean() for side in (inner[0], inner[-1], inner[:, 0], inner[:, -1])])


def rings(picture: Pixels, reference: Pixels) -> npt.NDArray[np.float64]:
    """(rings, 5): of the whole ring and of its four lines, over the reference's."""
    height, width = picture.shape[:2]
    rows = []
    for ring in RINGS:
        ours, theirs = lines(picture, ring), lines(reference, ring)
        lengths = np.array([width - 2 * ring] * 2 + [height - 2 * ring] * 2)
        rows.append([(ours * lengths).sum() / (theirs * lengths).sum(), *(ours / theirs)])
    return np.array(rows)


def as_batch(pixels: Pixels) -> npt.NDArray[np.float32]:
    """(1, 3, H, W) float32 in [0, 1], sides multiples of 4."""
    image = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None]
    return np.ascontiguousarray(extended(image, margin=0, multiple=4).numpy())


def of_batch(run: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> Enhance:
    """A function of batches as one of images."""

    def enhance(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        out = run(as_batch(pixels))[0, :, :height, :width].transpose(1, 2, 0)
        return (out.clip(0, 1) * 255).round().astype(np.uint8)

    return enhance


def ways(folder: Path, into: Path) -> dict[str, Enhance]:
    """All ways in which a model is used, as functions of an image."""
    model = load_model(folder)
    whole, tiled, batched = (Enhancer(model, compile=False) for _ in range(3))
    tiled.max_pixels = MIN_TILE_PIXELS
    batched.fix_shapes([(SMALL, SMALL)])
    assert batched.batch_size(SMALL, SMALL) > 1
    export.export_pt2(model, into / "net.pt2")
    export.export_onnx(model, into / "net.onnx")
    program = torch.export.load(into / "net.pt2").module()

    def bare(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return model(torch.from_numpy(image)).numpy()

    def pt2(image: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        with torch.inference_mode():
            return program(torch.from_numpy(image)).numpy()

    def in_batches(pixels: Pixels) -> Pixels:
        (image,) = batched.enhance_images([Image(pixels)])
        return image.pixels.astype(np.uint8, copy=False)

    return {
        "bare": of_batch(bare),
        "whole": whole,
        "tiled": tiled,
        f"batched, {SMALL}x{SMALL}": in_batches,
        "pt2": of_batch(pt2),
        "ONNX": of_batch(export.onnx_runner(into / "net.onnx")),
    }


def middle(picture: Pixels) -> Pixels:
    """The middle of an image as a small one."""
    top, left = ((side - SMALL) // 2 for side in picture.shape[:2])
    return np.ascontiguousarray(picture[top : top + SMALL, left : left + SMALL])


def measured(enhance: Enhance, pairs: list[tuple[Pixels, Pixels]]) -> dict[str, float]:
    """Means over the images."""
    enhanced = [(enhance(low), high) for low, high in pairs]
    means = np.mean([rings(out, high) for out, high in enhanced], axis=0)
    sides = means[0, 1:] / means[INNER, 1:]
    row = {f"ring {ring}": means[place, 0] for place, ring in enumerate(RINGS)}
    row["ring 0 / ring 16"] = means[0, 0] / means[INNER, 0]
    row["worst side"] = sides[np.abs(sides - 1).argmax()]
    row["psnr_db"] = np.mean([psnr(out, high) for out, high in enhanced])
    return {name: round(float(value), 3) for name, value in row.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path, help="folder with low/ and high/")
    parser.add_argument("--splits", type=Path, help="splits.json of a run: its validation pairs")
    parser.add_argument("--count", type=int, default=48, help="pictures, evenly over the folder")
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-frame.json"))
    options = parser.parse_args()
    names = sorted(path.name for path in (options.pairs / "low").iterdir())
    if options.splits:
        held = {Path(pair).name for pair in json.loads(options.splits.read_text())["val"]}
        names = [name for name in names if name in held]
    count = min(options.count, len(names))
    names = [names[number * len(names) // count] for number in range(count)]
    pairs = [
        (read_rgb(options.pairs / "low" / name), read_rgb(options.pairs / "high" / name))
        for name in names
    ]
    small = [(middle(low), middle(high)) for low, high in pairs]
    result = {}
    with tempfile.TemporaryDirectory() as into:
        for way, enhance in ways(options.model, Path(into)).items():
            row = result[way] = measured(enhance, small if "batched" in way else pairs)
            if len(result) == 1:
                print(f"{count} pictures\n\n| | {' | '.join(row)} |\n|{' --- |' * (len(row) + 1)}")
            print(f"| {way} | {' | '.join(f'{value:.3f}' for value in row.values())} |", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"pictures": count, "ways": result}, indent=2) + "\n")


if __name__ == "__main__":
    main()
