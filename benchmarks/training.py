"""What training costs: ``python benchmarks/training.py [--preset cpu] [--steps 20] [--json FILE]``.

Side by side, on random pairs: the step of the preset written as a plain eager float32 loop, the
same step as the product computes it, the whole loop in this process, and the whole loop on one and
on two Ray workers with checkpoints. Rates are taken after start-up. Medians; run it on an idle
machine.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirnet.config import Settings, apply_engine_defaults
from mirnet.models import build
from mirnet.params import Params, load_params
from mirnet.results import EpochMetrics
from mirnet.training.acceleration import compile_blocks
from mirnet.training.checkpoints import TrainState
from mirnet.training.context import InProcess
from mirnet.training.job import Job
from mirnet.training.loop import StepOf, fit
from mirnet.training.pairs import PackedPairs, pack_pairs
from mirnet.training.ray_launcher import launch_training
from mirnet.training.store import CheckpointStore, open_filesystem


def random_pairs(count: int, role: str) -> PackedPairs:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (400, 600, 3), dtype=np.uint8) for _ in range(count)]
    return pack_pairs([f"{role}/{n}.png" for n in range(count)], [(i // 8, i) for i in images])


def median_seconds(step: Callable[[], None], count: int) -> float:
    step()
    step()
    seconds = []
    for _ in range(count):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def plain_step(params: Params, low: Tensor, high: Tensor) -> Callable[[], None]:
    """The recipe's step with nothing done for speed: eager, float32, channels first."""
    torch.manual_seed(0)
    model = build(params.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        difference = model(low.contiguous()) - high.contiguous()
        torch.autograd.backward(torch.sqrt(difference.square() + 1e-6).mean())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def product_step(job: Job, context: InProcess, low: Tensor, high: Tensor) -> Callable[[], None]:
    state = TrainState.start(job, context.device)
    if job.params.train.compile:
        compile_blocks(state.model)
    step_of = StepOf(context, job, state.model)

    def step() -> None:
        state.set_lr()
        step_of(low, high, batch_size=len(low))
        nn.utils.clip_grad_norm_(state.model.parameters(), 1.0)
        state.update()

    return step


def with_recipe(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def rates(history: list[EpochMetrics]) -> dict[str, float]:
    later = history[1:]  # the first epoch warms up
    return {
        "patches_per_s": statistics.median(m.patches_per_s or 0.0 for m in later),
        "wait_share": statistics.median(m.wait_share or 0.0 for m in later),
    }


def measure(params: Params, steps: int) -> dict[str, object]:
    recipe = with_recipe(
        params, progressive=(), num_epochs=4, steps_per_epoch=steps, validate_every=4
    )
    size, batch_size = recipe.train.patch_size, recipe.train.batch_size
    job = Job(recipe, random_pairs(24, "train"), random_pairs(2, "val"), "random")
    shape = (batch_size, 3, size, size)
    low, high = (torch.rand(shape).to(memory_format=torch.channels_last) for _ in range(2))
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(workspace=Path(folder))
        filesystem, path = open_filesystem(settings)
        context = InProcess(CheckpointStore(filesystem, f"{path}/none"))
        plain = median_seconds(plain_step(recipe, low, high), steps)
        eager = with_recipe(recipe, compile=False)
        compiled = with_recipe(recipe, compile=True)
        results: dict[str, object] = {
            "machine": {"cores": os.cpu_count(), "load": os.getloadavg()[0]},
            "batch": list(shape),
            "step_s": {
                "plain": plain,
                "eager": median_seconds(
                    product_step(Job(eager, job.train, job.val, ""), context, low, high), steps
                ),
                "compiled": median_seconds(
                    product_step(Job(compiled, job.train, job.val, ""), context, low, high), steps
                ),
            },
        }
        history: list[EpochMetrics] = []
        fit(InProcess(CheckpointStore(filesystem, f"{path}/here"), history.append), job)
        results["in_process"] = rates(history)
        for workers in (1, 2):
            seen: list[EpochMetrics] = []
            place = settings.model_copy(update={"num_workers": str(workers)})
            started = time.perf_counter()
            launch_training(
                job,
                settings=place,
                run_name=f"ray{workers}",
                on_epoch=None,
                on_progress=seen.append,
            )
            total = time.perf_counter() - started
            results[f"ray_{workers}"] = rates(seen) | {
                "start_up_s": total - sum(m.seconds for m in seen)
            }
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    apply_engine_defaults()
    text = json.dumps(measure(load_params(arguments.preset), arguments.steps), indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
