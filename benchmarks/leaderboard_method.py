"""One row of the leaderboard: train a network for a processor time, and score it."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.leaderboard_rows import (
    ROW,
    Method,
    Protocol,
    Record,
    Row,
    SplitScore,
    Training,
    save,
)
from benchmarks.training import product_step, with_recipe
from mirnet.config import Settings
from mirnet.data.loading import load_pairs
from mirnet.data.versioning import data_version
from mirnet.evaluation.baselines import BASELINES, Enhance
from mirnet.evaluation.niqe import niqe
from mirnet.evaluation.safety_checks import peak_mib_per_megapixel
from mirnet.evaluation.scoring import score_pairs
from mirnet.evaluation.statistics import interval
from mirnet.inference import Enhancer
from mirnet.inference.catalogue import facts_of
from mirnet.models import load_model
from mirnet.models.registry import by_name
from mirnet.params import EvaluateParams, Params, load_params
from mirnet.results import EvaluationResult, MethodScore, TrainResult
from mirnet.stages.publishing import Evaluated, publish
from mirnet.stages.run import RunConfig, run_tags
from mirnet.storage.arrow import open_filesystem
from mirnet.training import IN_PROCESS, Listener, TrainRequest, train_model
from mirnet.training.context import InProcess
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.job import Job
from mirnet.training.store import CheckpointStore

EPOCHS = 10
"""Checkpoints of a training: an interruption loses a tenth of it at most."""
_MEASURED_SHARE = 0.02
NUM_SHOWN = 3

Pixels = NDArray[np.uint8]


class Plan(Record):
    """Measured before the training, in a process that has done nothing else."""

    step_core_s: float
    mib_per_megapixel: float | None


def measure(
    name: str,
    data: Path,
    into: Path,
    protocol: Protocol,
    *,
    tracking: Settings | None = None,
    listener: Listener = Listener(),
) -> Row:
    """Train and score one method; goes on where an earlier call was interrupted.

    Args:
        tracking: of the MLflow that gets the row as evaluations; none: it gets nothing.
    """
    make = _baseline if name in BASELINES else _network
    method, enhance, params = make(name, data, into / name, protocol, listener)
    run = RunConfig(params, tracking) if tracking is not None else None
    scoring = _Scoring(method, enhance, data, into / name, run)
    held = protocol.roles["eval"]
    row = Row(
        **method.model_dump(),
        val=scoring("val", protocol.roles["val"]),
        eval15=scoring("eval15", held) if held else None,
    )
    save(row, into / name / ROW)
    return row


def _baseline(
    name: str,
    data: Path,
    folder: Path,  # noqa: ARG001
    protocol: Protocol,
    listener: Listener,  # noqa: ARG001
) -> tuple[Method, Enhance, Params]:
    sample = load_pairs(data, protocol.roles["val"][:1])[0][0]
    mib = peak_mib_per_megapixel(BASELINES[name], sample)
    method = Method(name=name, title="baseline", mib_per_megapixel=mib)
    return method, BASELINES[name], load_params(protocol.preset, overrides=protocol.overrides)


def _network(
    name: str, data: Path, folder: Path, protocol: Protocol, listener: Listener
) -> tuple[Method, Enhance, Params]:
    params = params_of(name, protocol)
    plan = _plan(params, data, folder, protocol)
    trained = _train(params, plan, data, folder, protocol, listener)
    facts = facts_of(by_name(name), name)
    method = Method(
        name=name,
        title=facts.family,
        parameters=facts.parameters,
        gmac=facts.gmac,
        objective=dict(params.train.loss),
        training=_spent(trained, plan),
        mib_per_megapixel=plan.mib_per_megapixel,
    )
    return method, Enhancer(load_model(folder / "model"), compile=False), params


def params_of(name: str, protocol: Protocol) -> Params:
    """The preset with this network, its own objective, and nothing that selects weights.

    Patches are of the nearest size that the network takes.
    """
    patch = load_params(protocol.preset, overrides=protocol.overrides).train.patch_size
    multiple = by_name(name).size_multiple
    patch = max(round(patch / multiple), 1) * multiple
    fitted = (*protocol.overrides, f"model.name={name}", f"train.patch_size={patch}")
    return with_recipe(
        load_params(protocol.preset, overrides=fitted),
        num_epochs=EPOCHS,
        validate_every=EPOCHS,
        early_stop=None,
        samples_every=None,
        compile=False,
    )


def _plan(params: Params, data: Path, folder: Path, protocol: Protocol) -> Plan:
    path = folder / "plan.json"
    if path.is_file():
        return Plan.model_validate_json(path.read_text(encoding="utf-8"))
    low, high = load_pairs(data, protocol.roles["val"][:1])[0]
    fresh = Enhancer(params.model.config.build(), compile=False)
    mib = peak_mib_per_megapixel(fresh, low)
    plan = Plan(
        step_core_s=_step_core_s(params, (low, high), budget_s=60 * protocol.core_minutes),
        mib_per_megapixel=mib,
    )
    save(plan, path)
    return plan


def _step_core_s(params: Params, pair: tuple[Pixels, Pixels], *, budget_s: float) -> float:
    """Median processor time of a step of the product's loop, after two that warm up.

    With phases: the mean of theirs by their shares of the run.
    """
    recipe = params.train
    if recipe.phases is not None and len(recipe.phases) > 1:
        costs = [
            share * _step_core_s(with_recipe(params, phases={phase: 1.0}), pair, budget_s=budget_s)
            for phase, share in recipe.phases.items()
        ]
        return sum(costs) / sum(recipe.phases.values())
    shape = (recipe.batch_size, 3, recipe.patch_size, recipe.patch_size)
    low, high = (torch.rand(shape).to(memory_format=torch.channels_last) for _ in range(2))
    pairs = pack_pairs(["one"], [pair])
    with tempfile.TemporaryDirectory() as name:
        filesystem, path = open_filesystem(Settings(workspace=Path(name)))
        context = InProcess(CheckpointStore(filesystem, f"{path}/none"))
        step = product_step(Job(params, pairs, pairs, "one"), context, low, high)
        step()
        step()
        times: list[float] = []
        while len(times) < 3 or (len(times) < 20 and sum(times) < _MEASURED_SHARE * budget_s):
            started = time.process_time()
            step()
            times.append(time.process_time() - started)
    return max(statistics.median(times), 1e-4)


def _train(
    params: Params,
    plan: Plan,
    data: Path,
    folder: Path,
    protocol: Protocol,
    listener: Listener,
) -> TrainResult:
    """As many steps as fit into the processor time; the last weights are kept."""
    steps = 60 * protocol.core_minutes / plan.step_core_s
    request = TrainRequest(
        root=data,
        train_ids=protocol.roles["train"],
        # one image, since the loop needs a validation: the last weights are the result anyway
        val_ids=protocol.roles["val"][:1],
        params=with_recipe(params, steps_per_epoch=max(1, round(steps / EPOCHS))),
        settings=Settings(workspace=folder / "checkpoints", ray_address=IN_PROCESS),
        digest=protocol.digest,
        run_name="leaderboard",
        model_dir=folder / "model",
    )
    return train_model(request, listener)


def _spent(trained: TrainResult, plan: Plan) -> Training:
    return Training(
        core_minutes=sum(epoch.cpu_s for epoch in trained.history) / 60,
        minutes=sum(epoch.seconds for epoch in trained.history) / 60,
        steps=trained.history[-1].step,
        step_core_s=plan.step_core_s,
    )


@dataclass(frozen=True)
class _Scoring:
    method: Method
    enhance: Enhance
    data: Path
    folder: Path
    run: RunConfig | None

    def __call__(self, split: str, ids: Sequence[str]) -> SplitScore:
        name, loaded = self.method.name, load_pairs(self.data, ids)
        pairs = [(i, low, high) for i, (low, high) in zip(ids, loaded, strict=True)]
        outputs: dict[tuple[str, str], Pixels] = {}
        methods = {name: self.enhance}
        scores, summary = score_pairs(pairs, methods, EvaluateParams(), outputs=outputs)
        scores["niqe"] = [niqe(outputs[pair_id, name]) for pair_id in ids]
        extra = dict(summary[name].extra)
        mean = float(scores["niqe"].mean(skipna=False))
        if np.isfinite(mean):
            extra["niqe"] = mean
        if self.method.training is not None:
            extra["train_core_minutes"] = self.method.training.core_minutes
        score = summary[name].model_copy(update={"extra": extra})
        if split == "val":
            self._save_shown([outputs[pair_id, name] for pair_id in shown(ids)])
        if self.run is not None:
            version = data_version(self.data)
            evaluated = Evaluated(name, version, scores, pairs, outputs)
            _publish(score, evaluated, split, self.folder / "model", self.run)
        return _split_score(score, scores)

    def _save_shown(self, images: Sequence[Pixels]) -> None:
        (self.folder / "images").mkdir(parents=True, exist_ok=True)
        for number, image in enumerate(images):
            Image.fromarray(image).save(self.folder / "images" / f"{number}.png")


def _split_score(score: MethodScore, scores: pd.DataFrame) -> SplitScore:
    params = EvaluateParams()
    aligned = scores["gt_mean_psnr"].to_numpy(dtype=np.float64)
    return SplitScore(
        num_images=score.num_images,
        psnr=score.psnr,
        psnr_interval=score.psnr_interval,
        aligned_psnr=float(aligned.mean()),
        aligned_interval=interval(aligned, num_samples=params.bootstrap_samples, seed=params.seed),
        ssim=score.ssim,
        ssim_interval=score.ssim_interval,
        ciede2000=score.extra["ciede2000"],
        niqe=score.extra.get("niqe"),
        seconds_per_megapixel=score.extra["seconds_per_megapixel"],
        psnr_of=dict(zip(scores["pair_id"], scores["psnr"].astype(float), strict=True)),
    )


def shown(ids: Sequence[str]) -> list[str]:
    """The validation pairs on the page: evenly over the list."""
    places = np.linspace(0, len(ids) - 1, min(NUM_SHOWN, len(ids))).round().astype(int)
    return [ids[place] for place in sorted(set(places.tolist()))]


def _publish(
    score: MethodScore, evaluated: Evaluated, split: str, model: Path, run: RunConfig
) -> None:
    """One evaluation in MLflow, as of ``mirnet evaluate``; repeated, it resumes the same run."""
    from mirnet.stages.models import open_model
    from mirnet.tracking import track

    version, identity = evaluated.version, f"baseline:{score.method}"
    if score.method not in BASELINES:
        identity = open_model(str(model), run).ref.weights_digest or str(model)
    tags = {
        "mirnet.method": score.method,
        "mirnet.model": identity,
        "mirnet.split": split,
    }
    with track(
        run.settings,
        purpose="evaluate",
        name=f"{score.method} {split} {version.digest[:8]}",
        key=f"{version.digest} {split} {identity}",
        tags=run_tags(run, version) | tags,
    ) as tracked:
        result = EvaluationResult(
            model=identity,
            digest=version.digest,
            split=split,
            methods={score.method: score},
            scores_path="",
            seconds=float(evaluated.scores["seconds"].sum()),
        )
        publish(result, evaluated, {score.method: tracked}, {})
