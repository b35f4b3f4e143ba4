"""How good a preset gets in a given time.

    python -m benchmarks.training_quality LOL [--preset paper] [--minutes 30]

Trains the preset on the training scenes of a LoL folder, in this process, with as many steps as fit
into the time at the measured speed, and scores whole validation images beside autocontrast.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.training import product_step, take_turns, with_recipe
from mirnet.config import Settings
from mirnet.data.loading import load_pairs
from mirnet.evaluation.baselines import autocontrast
from mirnet.evaluation.metrics import psnr
from mirnet.hardware import use_kernel_cache
from mirnet.params import Params, ValidateParams, load_params
from mirnet.results import EpochMetrics
from mirnet.storage.arrow import open_filesystem
from mirnet.training import IN_PROCESS, Listener, TrainRequest, train_model
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.job import Job
from mirnet.training.store import CheckpointStore

EPOCHS = 6


def step_seconds(params: Params, folder: Path) -> float:
    """Median seconds of the preset's step, compiled where the preset says so."""
    recipe = params.train
    filesystem, path = open_filesystem(Settings(workspace=folder))
    context = InProcess(CheckpointStore(filesystem, f"{path}/none"))
    shape = (recipe.batch_size, 3, recipe.patch_size, recipe.patch_size)
    low, high = (torch.rand(shape, device=context.device) for _ in range(2))
    random = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    pairs = pack_pairs(["random"], [(random, random)])
    step = product_step(Job(params, pairs, pairs, "random"), context, low, high)
    return take_turns({"step": step}, 10)["step"]["median"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="paper")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--splits", type=Path, help="splits.json of a run; none: by scene")
    parser.add_argument("--json", type=Path, default=Path("reports/benchmark-quality.json"))
    options = parser.parse_args()
    use_kernel_cache(Path(".mirnet/cache/kernels"))
    with tempfile.TemporaryDirectory() as name:
        result = measure(options, Path(name))
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print({key: value for key, value in result.items() if key != "epochs"})


def roles_of(options: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    if options.splits:
        return {role: tuple(ids) for role, ids in json.loads(options.splits.read_text()).items()}
    from mirnet.data.manifest import build_manifest
    from mirnet.data.splits import split_pairs

    return split_pairs(build_manifest(options.data), ValidateParams())


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    params = load_params(options.preset)
    roles = roles_of(options)
    seconds = step_seconds(params, folder)
    steps = max(1, int(options.minutes * 60 / seconds) // EPOCHS)
    params = with_recipe(
        params, progressive=(), num_epochs=EPOCHS, steps_per_epoch=steps, validate_every=1
    )

    def show(metrics: EpochMetrics) -> None:
        print(metrics.describe(EPOCHS), flush=True)

    started = time.perf_counter()
    request = TrainRequest(
        root=options.data,
        train_ids=roles["train"],
        val_ids=roles["val"],
        params=params,
        settings=Settings(workspace=folder, ray_address=IN_PROCESS),
        digest="benchmark",
        run_name="quality",
        model_dir=folder / "model",
    )
    result = train_model(request, Listener(on_progress=show))
    taken = time.perf_counter() - started
    pairs = load_pairs(options.data, roles["val"])
    baseline = np.mean([psnr(autocontrast(low), high) for low, high in pairs])
    return {
        "preset": options.preset,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "train_pairs": len(roles["train"]),
        "val_pairs": len(roles["val"]),
        "step_s": seconds,
        "steps": steps * EPOCHS,
        "minutes": taken / 60,
        "val_psnr": result.history[-1].val_psnr,
        "best_val_psnr": result.best_val_psnr,
        "autocontrast_psnr": float(baseline),
        "epochs": [metrics.model_dump() for metrics in result.history],
    }


if __name__ == "__main__":
    main()
