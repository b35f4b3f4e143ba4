"""Exported networks beside ours: size, speed, and what int8 costs in quality.

    python -m benchmarks.export MODEL --pairs LOL/our485

Each form enhances the same images on the same threads; seconds are the best of several. PSNR is
that of the enhanced pairs against their reference, over pairs that int8 was not calibrated on.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from mirnet.images import read_rgb
from mirnet.inference.network import FastNetwork
from mirnet.models import export, load_model
from mirnet.models.margin import extended

Batch = npt.NDArray[np.float32]
Run = Callable[[Batch], Batch]
CALIBRATION, SCORED = 12, 12


def as_batch(path: Path) -> Batch:
    """(1, 3, H, W) float32 in [0, 1], sides multiples of 4."""
    pixels = read_rgb(path).astype(np.float32) / 255
    height, width = pixels.shape[0] // 4 * 4, pixels.shape[1] // 4 * 4
    return np.ascontiguousarray(pixels[:height, :width].transpose(2, 0, 1)[None])


def psnr(enhanced: Batch, reference: Batch) -> float:
    """Of 8-bit images, peak 255."""
    difference = (enhanced.clip(0, 1) * 255).round() - reference * 255
    return float(10 * np.log10(255**2 / np.square(difference.astype(np.float64)).mean()))


def seconds(run: Run, image: Batch, *, repeats: int = 5) -> float:
    """Least wall-clock seconds."""
    run(image)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run(image)
        times.append(time.perf_counter() - started)
    return min(times)


def forms(folder: Path, lows: list[Batch], into: Path) -> dict[str, tuple[Run, float]]:
    """Every form as a function, and the megabytes of its file."""
    model = load_model(folder)
    cpu = torch.device("cpu")

    def ours(dtype: torch.dtype) -> Run:
        network = FastNetwork(model, device=cpu, dtype=dtype)
        margin, multiple = model.margin, model.size_multiple

        def run(image: Batch) -> Batch:
            out = network(extended(torch.from_numpy(image), margin=margin, multiple=multiple))
            height, width = image.shape[2:]
            return out[:, :, margin : margin + height, margin : margin + width].float().numpy()

        return run

    weights = (folder / "weights.safetensors").stat().st_size / 1e6
    found = {"float32": (ours(torch.float32), weights), "bf16": (ours(torch.bfloat16), weights)}
    export.export_pt2(model, into / "net.pt2")
    program = torch.export.load(into / "net.pt2").module()
    export.export_onnx(model, into / "net.onnx")
    export.export_int8(model, into / "int8.onnx", lows=lows)

    def pt2(image: Batch) -> Batch:
        with torch.inference_mode():
            return program(torch.from_numpy(image)).numpy()

    runs = {"pt2": ("net.pt2", pt2)}
    runs |= {
        name: (file, export.onnx_runner(into / file))
        for name, file in (("onnx", "net.onnx"), ("onnx int8", "int8.onnx"))
    }
    sizes = {name: (into / file).stat().st_size / 1e6 for name, (file, _) in runs.items()}
    return found | {name: (run, sizes[name]) for name, (_, run) in runs.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with low/ and high/")
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-export.json"))
    options = parser.parse_args()
    names = sorted(path.name for path in (options.pairs / "low").iterdir())
    lows = [as_batch(options.pairs / "low" / name) for name in names]
    rows = []
    print("| form | MB | seconds | PSNR dB | PSNR to float32 |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as into:
        reference: dict[str, Batch] = {}
        scored = list(zip(names, lows, strict=True))[CALIBRATION : CALIBRATION + SCORED]
        for form, (run, size) in forms(options.model, lows[:CALIBRATION], Path(into)).items():
            scores, deviations = [], []
            for name, low in scored:
                enhanced = run(low)
                first = reference.setdefault(name, enhanced)
                scores.append(psnr(enhanced, as_batch(options.pairs / "high" / name)))
                error = float(np.square(enhanced.clip(0, 1) - first.clip(0, 1)).mean())
                deviations.append(10 * np.log10(1 / max(error, 1e-12)))
            rows.append(
                {
                    "form": form,
                    "megabytes": round(size, 2),
                    "seconds": round(seconds(run, lows[0]), 3),
                    "psnr_db": round(float(np.mean(scores)), 2),
                    "worst_psnr_to_float32_db": round(min(deviations), 1),
                }
            )
            print("| " + " | ".join(str(value) for value in rows[-1].values()) + " |", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
