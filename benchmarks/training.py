"""What training costs: ``python -m benchmarks.training [--preset cpu] [--json FILE]``.

On random pairs: the step of the preset written as a plain eager float32 loop, the same step as the
product computes it (medians), and the whole loop without anything around it, in one process on all
cores, and on two Ray workers with tracking and checkpoints. Steps take turns, and so do the loops,
by five seconds, so that other work on the machine touches all alike. A quarter of an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.plain import plain_forward
from benchmarks.turns import take_turns as run_in_turns, working_s
from mirnet.config import Settings, apply_engine_defaults
from mirnet.hardware import use_kernel_cache
from mirnet.models.ops import cpu_gradients
from mirnet.params import Params, load_params
from mirnet.results import EpochMetrics
from mirnet.storage.arrow import open_filesystem
from mirnet.training.acceleration import compile_blocks
from mirnet.training.checkpoints import TrainState
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import PackedPairs, pack_pairs
from mirnet.training.job import Job
from mirnet.training.loop import StepOf, TrainingPass, fit
from mirnet.training.request import Listener
from mirnet.training.store import CheckpointStore

Step = Callable[[], None]
ENDS = "ends.jsonl"


def random_pairs(count: int, role: str) -> PackedPairs:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (400, 600, 3), dtype=np.uint8) for _ in range(count)]
    return pack_pairs([f"{role}/{n}.png" for n in range(count)], [(i // 8, i) for i in images])


def plain_step(params: Params, low: Tensor, high: Tensor) -> Step:
    """Nothing done for speed: the paper's operations, eager, float32, channels first."""
    torch.manual_seed(0)
    model = params.model.config.build().to(low.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    low, high = low.contiguous(), high.contiguous()

    def step() -> None:
        with passes_of_torch():
            difference = plain_forward(model, low) - high
            torch.autograd.backward(torch.sqrt(difference.square() + 1e-6).mean())
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


@contextmanager
def passes_of_torch() -> Iterator[None]:
    """Without our own backward passes."""
    ours, cpu_gradients._wanted = cpu_gradients._wanted, lambda *_, **__: False
    try:
        yield
    finally:
        cpu_gradients._wanted = ours


def without_own_passes(step: Step) -> Step:
    def run() -> None:
        with passes_of_torch():
            step()

    return run


def product_step(job: Job, context: InProcess, low: Tensor, high: Tensor) -> Step:
    state = TrainState.start(job, context.device)
    if job.params.train.compile:
        compile_blocks(state.model)
    wrapped = TrainingPass(state)
    step_of = StepOf(context, job.params.train.accumulate, wrapped, state.scaler)

    def step() -> None:
        state.start_step()
        step_of(low, high, batch_size=len(low))
        state.clip()
        state.update()

    return step


def timed(step: Step) -> float:
    """Seconds, also of what a GPU still has to do when the call returns."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    started = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - started


def take_turns(steps: dict[str, Step], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds of each step: the first call with its compilation, median and least of the rest."""
    first, seconds = {}, {name: [] for name in steps}
    for name, step in steps.items():
        first[name] = timed(step)
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            seconds[name].append(timed(step))
    return {
        name: {"first": first[name], "median": statistics.median(values), "least": min(values)}
        for name, values in seconds.items()
    }


def with_recipe(params: Params, **changes: object) -> Params:
    return params.model_copy(update={"train": params.train.model_copy(update=changes)})


def measure_steps(params: Params, job: Job, folder: Path, rounds: int) -> dict[str, object]:
    recipe = params.train
    shape = (recipe.batch_size, 3, recipe.patch_size, recipe.patch_size)
    filesystem, path = open_filesystem(Settings(workspace=folder))
    context = InProcess(CheckpointStore(filesystem, f"{path}/none"))
    low, high = (
        torch.rand(shape, device=context.device).to(memory_format=torch.channels_last)
        for _ in range(2)
    )
    steps = {"plain": plain_step(params, low, high)}
    for name, compiled in (("eager", False), ("compiled", True)):
        variant = Job(with_recipe(params, compile=compiled), job.train, job.val, "")
        steps[name] = product_step(variant, context, low, high)
    if context.device.type == "cpu":
        steps["eager, torch's passes"] = without_own_passes(steps["eager"])
    return {"batch": list(shape), "step_s": take_turns(steps, rounds)}


class Bare(InProcess):
    """Keeps no checkpoint."""

    def report(self, metrics: EpochMetrics | None, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            shutil.rmtree(checkpoint)
        super().report(metrics, None)


@dataclass(frozen=True)
class Ends:
    """Writes down when epochs ended; called where that is known first."""

    file: Path

    def __call__(self, metrics: EpochMetrics) -> None:
        line = json.dumps([time.time(), metrics.step, metrics.wait_share])
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(f"{line}\n")


def bare_loop(job: Job, folder: Path) -> None:
    """The loop with nothing around it; its checkpoints go nowhere."""
    filesystem, path = open_filesystem(Settings(workspace=folder))
    fit(
        Bare(CheckpointStore(filesystem, f"{path}/bare"), Listener(on_epoch=Ends(folder / ENDS))),
        job,
    )


@dataclass(frozen=True)
class Both:
    """To MLflow, then to the file."""

    logger: Callable[[EpochMetrics], None]
    ends: Ends

    def __call__(self, metrics: EpochMetrics) -> None:
        self.logger(metrics)
        self.ends(metrics)


def whole_loop(job: Job, folder: Path, workers: int) -> None:
    """The same on Ray, with MLflow and checkpoints."""
    from mirnet.tracking import EpochLogger, track
    from mirnet.training.ray.launcher import launch_training

    settings = Settings(workspace=folder, num_workers=str(workers))
    with track(settings, purpose="train", name="benchmark") as run:
        logger = EpochLogger(settings.mlflow_uri, run.run_id, (folder / "wait.jsonl").resolve())
        launch_training(
            job,
            settings=settings,
            run_name="whole",
            listener=Listener(on_epoch=Both(logger, Ends(folder / ENDS)), on_event=logger.extra),
        )


def measure_loops(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    """Patches a second of each loop, while they take turns."""
    programs: dict[str, tuple[Sequence[str], Path]] = {}
    for name in ("bare", *(f"ray_{workers}" for workers in options.workers)):
        (folder / name).mkdir()
        command = [sys.executable, __file__, "--preset", options.preset, "--loop", name]
        command += ["--steps", str(options.steps), "--folder", str(folder / name)]
        programs[name] = (command, folder / name / ENDS)
    turns = run_in_turns(
        programs, seconds=60 * options.minutes * len(programs), turn_s=options.turn
    )
    batch = load_params(options.preset).train.batch_size
    rates, waits = {}, {}
    for name, (_, file) in programs.items():
        ends = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        (begin, first, _), (end, last, _) = ends[0], ends[-1]
        worked = working_s(turns[name], begin, end)
        rates[name] = batch * (last - first) / worked
        # shares are of wall clock, in which the loop also stood still
        waited = (share * (now - before) for (before, _, _), (now, _, share) in pairwise(ends))
        waits[name] = sum(waited) / worked
    return {"patches_per_s": rates, "wait_share": max(waits.values()), "turn_s": options.turn}


def run_loop(options: argparse.Namespace, job: Job) -> None:
    """One of the loops in a process of its own; it goes on until it is ended."""
    if options.loop == "bare":
        bare_loop(job, options.folder)
    else:
        whole_loop(job, options.folder, int(options.loop.removeprefix("ray_")))


def table(results: dict[str, Any]) -> str:
    rows: list[tuple[str, str, str, bool | None]] = []
    if "steps" in results:
        steps = results["steps"]["step_s"]
        times = {name: steps["plain"]["median"] / steps[name]["median"] for name in steps}
        own = "compiled" if results["compile"] else "eager"
        least = 2.5 if torch.cuda.is_available() else 2.0
        rows = [
            (
                f"the preset's step ({own}), times plain",
                f"{times[own]:.2f}",
                f"{least:.2f}",
                times[own] >= least,
            ),
            *(
                (f"the same {name}, times plain", f"{value:.2f}", "", None)
                for name, value in times.items()
                if name not in ("plain", own)
            ),
        ]
    if "loops" in results:
        loops = results["loops"]
        rate = dict(loops["patches_per_s"])
        bare = rate.pop("bare")
        for name, value in rate.items():
            cost = 1 - value / bare
            text = f"Ray ({name.removeprefix('ray_')}), tracking, checkpoints"
            rows.append((text, f"{cost:.1%}", "5 %", cost <= 0.05))
        wait = loops["wait_share"]
        rows.append(("waiting for data", f"{wait:.2%}", "2 %", wait <= 0.02))
    marks = {True: "met", False: "missed", None: ""}
    lines = [f"{name:38} {value:>9} {target:>7}  {marks[met]}" for name, value, target, met in rows]
    return "\n".join([f"{'':38} {'measured':>9} {'target':>7}", *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", default="cpu-mirnet")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each step")
    parser.add_argument("--steps", type=int, default=50, help="steps per epoch of the loops")
    parser.add_argument("--minutes", type=float, default=5, help="of each loop")
    parser.add_argument("--turn", type=float, default=5, help="seconds")
    parser.add_argument("--workers", type=int, nargs="+", default=[2], help="of the loops on Ray")
    parser.add_argument("--only", choices=("steps", "loops"), help="one of the two parts")
    parser.add_argument("--loop", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    apply_engine_defaults()
    use_kernel_cache(Path(".mirnet/cache/kernels"))
    params = with_recipe(
        load_params(arguments.preset),
        progressive=(),
        num_epochs=10_000,
        steps_per_epoch=arguments.steps,
        validate_every=10_000,
        early_stop=None,
    )
    job = Job(params, random_pairs(24, "train"), random_pairs(2, "val"), "random")
    if arguments.loop:
        run_loop(arguments, job)
        return
    machine = {"cores": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results: dict[str, Any] = {"machine": machine, "compile": params.train.compile}
        if arguments.only != "loops":
            results["steps"] = measure_steps(params, job, folder, arguments.rounds)
        if arguments.only != "steps":
            results["loops"] = measure_loops(arguments, folder)
    machine["load_after"] = os.getloadavg()[0]
    print(table(results))
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
