"""One trial: measure the network, plan its steps, and train; in the process of a Ray actor."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyarrow import fs

from mirnet.errors import TrainingError
from mirnet.inference import Enhancer
from mirnet.inference.catalogue import HEIGHT, WIDTH, seconds_of_pass, size_of
from mirnet.models import load_model
from mirnet.params import Params, params_from
from mirnet.results import EpochMetrics
from mirnet.search.rows import EPOCHS, Plan, Point, Trial
from mirnet.training import Listener
from mirnet.training.checkpoints import read_progress
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import PackedPairs, Pixels, check_patch_fits, pack_pairs
from mirnet.training.job import Job
from mirnet.training.launch import export_best
from mirnet.training.loop import fit
from mirnet.training.store import CheckpointStore

FEWEST_STEPS = 20
"""With fewer a network is too slow for the time of a trial."""
_MEASURED_STEPS = 3

Tell = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Planned:
    """What was measured before the training; ``values`` are the params with its steps."""

    values: dict[str, Any]
    parameters: int
    gmac: float
    seconds_per_megapixel: float
    steps: int


def checkpoints(filesystem: fs.FileSystem, root: str, plan: Plan, trial: Trial) -> CheckpointStore:
    """The store of the checkpoints of a trial."""
    return CheckpointStore(filesystem, f"{root}/{plan.name}/{trial.key}")


def planned(trial: Trial, plan: Plan, job: Job) -> Planned:
    """Measure the network of a trial, and plan as many steps as fit into the time of a trial.

    Raises:
        TrainingError: too few fit, or the network cannot be trained.
        DataError: a pair is smaller than a patch.
    """
    started = time.monotonic()
    recipe, config = trial.params.train, trial.params.model.config
    check_patch_fits(
        job.train, max([recipe.patch_size, *(s.patch_size for s in recipe.progressive)])
    )
    parameters, gmac = size_of(config)
    per_megapixel = seconds_of_pass(config) / (HEIGHT * WIDTH / 1e6)
    step_s, image_s = _measured(trial.params, job)
    left_s = plan.trial_s - (time.monotonic() - started) - EPOCHS * len(job.val) * image_s
    steps = int(left_s / step_s)
    if steps < FEWEST_STEPS:
        raise TrainingError(
            f"too slow: {max(steps, 0)} steps of {step_s:.2f} s and {EPOCHS} validations of "
            f"{len(job.val) * image_s:.1f} s in {plan.trial_s:.0f} s"
        )
    values = with_recipe(trial.values, num_epochs=EPOCHS, steps_per_epoch=steps // EPOCHS)
    return Planned(values, parameters, gmac, per_megapixel, steps // EPOCHS * EPOCHS)


def with_recipe(values: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Params as values, with others in ``train``, and without what is not searched."""
    fixed = {"validate_every": 1, "early_stop": None, "samples_every": None, "compile": False}
    return values | {"train": values.get("train", {}) | fixed | changes}


def train(
    trial: Trial, job: Job, store: CheckpointStore, on_point: Callable[[Point], None]
) -> None:
    """Train to the end, from the last checkpoint if there is one.

    ``on_point`` hears of every validation, also of those before an interruption.

    Raises:
        TrainingError: a loss is not finite, or the checkpoint is of another recipe.
    """

    def tell(metrics: EpochMetrics) -> None:
        if metrics.val_psnr is not None and metrics.val_ssim is not None:
            on_point(Point(epoch=metrics.epoch + 1, psnr=metrics.val_psnr, ssim=metrics.val_ssim))

    with store.latest() as folder:
        earlier = read_progress(folder).history if folder is not None else []
    for metrics in earlier:
        tell(metrics)
    fit(InProcess(store, Listener(on_epoch=tell)), replace(job, params=trial.params))


def _measured(params: Params, job: Job) -> tuple[float, float]:
    """Seconds of a step and of the validation of an image, by the loop itself, after a warm-up."""
    values = params.model_dump(by_alias=True, mode="json", exclude_unset=True)
    short = params_from(with_recipe(values, num_epochs=2, steps_per_epoch=_MEASURED_STEPS))
    val = chosen_pairs(job.val, 1)
    epochs: list[EpochMetrics] = []
    with tempfile.TemporaryDirectory() as folder:
        store = CheckpointStore(fs.LocalFileSystem(), folder)
        fit(InProcess(store, Listener(on_epoch=epochs.append)), replace(job, params=short, val=val))
    last = epochs[-1]
    # patches_per_s leaves validation out, seconds do not
    steps_s = _MEASURED_STEPS * short.train.batch_size / (last.patches_per_s or 1.0)
    return max(steps_s / _MEASURED_STEPS, 1e-4), max(last.seconds - steps_s, 1e-4)


def measured_validation(plan: Plan, job: Job) -> float:
    """Seconds of the validation of an image by the params as they are."""
    before = torch.get_num_threads()
    use_threads(plan.threads)
    try:
        return _measured(plan.params, job)[1]
    finally:
        use_threads(before)


def chosen_pairs(pairs: PackedPairs, most: int) -> PackedPairs:
    """At most as many of them, evenly over their list."""
    places = np.linspace(0, len(pairs) - 1, min(most, len(pairs))).round().astype(int)
    chosen = sorted(set(places.tolist()))
    return pack_pairs([pairs.names[i] for i in chosen], [pairs.pair(i) for i in chosen])


def use_threads(count: int) -> None:
    """Of a trial on the processor: others train beside it."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def outputs_of(
    trial: Trial, plan: Plan, pairs: PackedPairs, filesystem: fs.FileSystem, root: str
) -> list[Pixels]:
    """What the best weights of a trial make of the low image of each pair.

    Raises:
        TrainingError: it has no scored checkpoint.
    """
    with tempfile.TemporaryDirectory() as folder:
        with checkpoints(filesystem, root, plan, trial).latest() as checkpoint:
            export_best(checkpoint, Path(folder) / "model")
        enhance = Enhancer(load_model(Path(folder) / "model"), compile=False)
        return [enhance(pairs.pair(index)[0]) for index in range(len(pairs))]
