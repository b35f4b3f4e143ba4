"""The stage ``evaluate``: scores of a model, the baselines and the champion on the same pairs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.cost import CostMeter
from mirnet.results import DataVersion, EvaluationResult, OpenedModel, TrainResult
from mirnet.stages.data import split_roles
from mirnet.stages.models import (
    CANDIDATE,
    CHAMPION,
    HARM_SHARE,
    PEAK_MIB,
    WELL_LIT,
    champion,
    load_enhancer,
    open_model,
)
from mirnet.stages.publishing import Evaluated, publish, render
from mirnet.stages.run import RunConfig, run_tags

if TYPE_CHECKING:
    from mirnet.evaluation.baselines import Enhance
    from mirnet.evaluation.scoring import ScoredPair
    from mirnet.params import EnhanceParams
    from mirnet.stages.publishing import Outputs
    from mirnet.tracking import TrackedRun

_WELL_LIT_IMAGES = 8


def evaluate(
    data: Path,
    run: RunConfig,
    *,
    model: str | None = None,
    trained: TrainResult | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Score a model, the baselines and the champion on held-out pairs, one MLflow run each.

    Args:
        model: a folder, ``models:/NAME@ALIAS`` or ``baseline:NAME``; none: the last trained.
        progress: called after each pair with the number done and the total.

    Raises:
        UsageError: no such model or baseline, or nothing was trained yet.
        DataError: no pairs to score.
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.data.loading import load_pairs
    from mirnet.data.splits import val_stands_in
    from mirnet.data.versioning import data_version
    from mirnet.evaluation.scoring import add_gains, score_pairs
    from mirnet.tracking import check_tracking

    started, meter = time.monotonic(), CostMeter(run.settings)
    check_tracking(run.settings)
    trained = _training_of(model, trained, run)
    source = model or (trained.model_dir if trained else "")
    contest = _contest(source, run, trained)
    version = data_version(data)
    roles = split_roles(data, run)
    split = "val" if val_stands_in(roles) else run.params.evaluate.split
    ids = roles["val" if split == "val" else "eval"]
    pairs = [(i, low, high) for i, (low, high) in zip(ids, load_pairs(data, ids), strict=True)]
    outputs: Outputs = {}
    # opened before the work: if MLflow fails in the meantime, their records are queued
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(_open_run(name, contest, run, version=version, split=split))
            for name in contest.methods
        }
        conduct = _conduct(contest.methods, pairs, run.params.enhance)
        scores, summary = score_pairs(
            pairs, contest.methods, run.params.evaluate, outputs=outputs, progress=progress
        )
        summary = add_gains(scores, summary, contest.candidate, run.params.evaluate)
        harm = _harm(outputs, pairs, run.params.enhance)
        for name, score in summary.items():
            extra = score.extra | conduct.get(name, {}) | harm.get(name, {})
            more = {"extra": extra, "run_id": runs[name].run_id}
            summary[name] = score.model_copy(update=more)
        folder = run.settings.reports_dir / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        scores.to_parquet(folder / "scores.parquet", index=False)
        candidate = runs[contest.candidate]
        result = EvaluationResult(
            run_id=candidate.run_id,
            model=source,
            digest=version.digest,
            split=split,
            methods=summary,
            champion_version=contest.champion_version,
            scores_path=str(folder / "scores.parquet"),
            seconds=time.monotonic() - started,
            cost=meter.cost(),
        )
        evaluated = Evaluated(contest.candidate, version, scores, pairs, outputs)
        page = render(result, evaluated, run, folder / "index.html", trained)
        url = candidate.artifact_page(page.name)
        result = result.model_copy(update={"report_path": str(page), "report_url": url})
        result.save(run.report("evaluate"))
        publish(result, evaluated, runs, contest.model_ids)
    return result


def _training_of(
    model: str | None, trained: TrainResult | None, run: RunConfig
) -> TrainResult | None:
    """The training result of the model, for its curves; none for other models."""
    if trained is None and model is None:
        return TrainResult.load(run.report("train"))
    path = run.report("train")
    if trained is None and path.is_file():
        last = TrainResult.load(path)
        return last if last.model_dir == model else None
    return trained


@dataclass(frozen=True)
class _Contest:
    """Methods and their identities by name, and the version of the champion."""

    candidate: str
    methods: dict[str, Enhance]
    identities: dict[str, str]
    model_ids: dict[str, str | None] = field(default_factory=dict)
    training_run: str | None = None
    champion_version: str | None = None


def _contest(source: str, run: RunConfig, trained: TrainResult | None) -> _Contest:
    """The baselines, the candidate, and the champion unless it is the candidate itself."""
    from mirnet.evaluation.baselines import baseline

    names = list(run.params.evaluate.baselines)
    if source.startswith("baseline:"):
        names = list(dict.fromkeys([*names, source.removeprefix("baseline:")]))
    methods = {name: baseline(name) for name in names}
    identities = {name: f"baseline:{name}" for name in names}
    if source.startswith("baseline:"):
        return _Contest(source.removeprefix("baseline:"), methods, identities)
    opened = open_model(source, run)
    training_run = opened.ref.run_id or (trained.run_id if trained else None)
    methods[CANDIDATE] = load_enhancer(opened.folder, run)
    identities[CANDIDATE] = opened.ref.weights_digest or source
    model_ids = {CANDIDATE: opened.model_id or _logged(opened, training_run, run)}
    current = champion(run)
    if current is not None:
        digest = current.ref.weights_digest
        if digest != opened.ref.weights_digest:
            methods[CHAMPION] = load_enhancer(current.folder, run)
            identities[CHAMPION] = f"champion {digest}"
            model_ids[CHAMPION] = current.model_id
    return _Contest(
        CANDIDATE,
        methods,
        identities,
        model_ids,
        training_run=training_run,
        champion_version=current.ref.version if current else None,
    )


def _logged(opened: OpenedModel, training_run: str | None, run: RunConfig) -> str | None:
    """Id of the LoggedModel of a folder that a training run wrote."""
    from mirnet.tracking.logged_models import find_model

    if training_run is None or opened.ref.weights_digest is None:
        return None
    return find_model(training_run, opened.ref.weights_digest, run.settings)


def _open_run(
    name: str, contest: _Contest, run: RunConfig, *, version: DataVersion, split: str
) -> AbstractContextManager[TrackedRun]:
    """One run per method in MLflow; the same method on the same pairs resumes its run."""
    from mirnet.tracking import track

    identity = contest.identities[name]
    tags = {
        "mirnet.method": name,
        "mirnet.model": identity,
        "mirnet.split": split,
        "mirnet.training_run": contest.training_run if name == CANDIDATE else None,
    }
    return track(
        run.settings,
        purpose="evaluate",
        name=f"{name} {split} {version.digest[:8]}",
        key=f"{version.digest} {split} {identity}",
        tags=run_tags(run, version) | tags,
    )


def _conduct(
    methods: Mapping[str, Enhance], pairs: Sequence[ScoredPair], params: EnhanceParams
) -> dict[str, dict[str, float]]:
    """Memory and PSNR of well-lit images of the candidate, for the gate.

    Measured before the scores: memory that the allocator keeps from other images hides a part.
    """
    from mirnet.batch.guard import harm_limits
    from mirnet.evaluation.safety_checks import guarded, peak_mib_per_megapixel, well_lit_psnr

    if CANDIDATE not in methods or not pairs:
        return {}
    enhance = methods[CANDIDATE]
    mib = peak_mib_per_megapixel(enhance, pairs[0][1])
    highs = [high for _, _, high in pairs[:_WELL_LIT_IMAGES]]
    written = guarded(enhance, harm_limits(params), pass_luminance=params.pass_luminance)
    kept = {WELL_LIT: well_lit_psnr(written, highs)}
    return {CANDIDATE: kept if mib is None else kept | {PEAK_MIB: mib}}


def _harm(
    outputs: Outputs, pairs: Sequence[ScoredPair], params: EnhanceParams
) -> dict[str, dict[str, float]]:
    """Share of dark images whose output a batch would reject, by network."""
    from mirnet.batch.guard import harm_limits
    from mirnet.evaluation.safety_checks import harm_share

    limits = harm_limits(params)
    names = {name for _, name in outputs} & {CANDIDATE, CHAMPION}
    return {
        name: {HARM_SHARE: harm_share([(low, outputs[i, name]) for i, low, _ in pairs], limits)}
        for name in names
    }
