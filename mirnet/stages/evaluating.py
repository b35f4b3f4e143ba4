"""The stage that scores: a model, the baselines and the champion on the same pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.cost import CostMeter
from mirnet.results import DataVersion, EvaluationResult, MethodScore, TrainResult
from mirnet.stages.data import split_roles
from mirnet.stages.models import (
    CANDIDATE,
    CHAMPION,
    PEAK_MIB,
    WELL_LIT,
    champion,
    load_enhancer,
    open_model,
)
from mirnet.stages.run import Run
from mirnet.stages.training import run_tags

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mirnet.evaluation.baselines import Enhance
    from mirnet.evaluation.scoring import ScoredPair
    from mirnet.tracking import TrackedRun

    Outputs = dict[tuple[str, str], NDArray[np.uint8]]

_WELL_LIT_PICTURES = 8


def evaluate(
    data: Path,
    run: Run,
    *,
    model: str | None = None,
    trained: TrainResult | None = None,
) -> EvaluationResult:
    """Score a model, the baselines and the champion on held-out pairs, each its own MLflow run.

    Args:
        model: a folder, ``models:/NAME@ALIAS`` or ``baseline:NAME``; the last trained if none.

    Raises:
        UsageError: no such model or baseline, or nothing was trained yet.
        DataError: no pairs to score.
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.data.loading import load_pairs
    from mirnet.data.versioning import data_version
    from mirnet.evaluation.scoring import score_pairs
    from mirnet.tracking import check_tracking

    started, meter = time.monotonic(), CostMeter(run.settings)
    check_tracking(run.settings)
    trained = _training_of(model, trained, run)
    source = model or (trained.model_dir if trained else "")
    contest = _contest(source, run)
    version = data_version(data)
    ids = split_roles(data, run)["val" if run.params.evaluate.split == "val" else "eval"]
    pairs = [(i, low, high) for i, (low, high) in zip(ids, load_pairs(data, ids), strict=True)]
    outputs: Outputs = {}
    # the runs are there before the work: if MLflow goes away meanwhile, what they say is kept
    with ExitStack() as stack:
        runs = {
            name: stack.enter_context(_open_run(name, contest, run, version=version))
            for name in contest.methods
        }
        conduct = _conduct(contest.methods, pairs)
        scores, summary = score_pairs(pairs, contest.methods, run.params.evaluate, outputs=outputs)
        for name, score in summary.items():
            more = {"extra": score.extra | conduct.get(name, {}), "run_id": runs[name].run_id}
            summary[name] = score.model_copy(update=more)
        folder = run.settings.reports_dir / "evaluation"
        folder.mkdir(parents=True, exist_ok=True)
        scores.to_parquet(folder / "scores.parquet", index=False)
        result = EvaluationResult(
            run_id=runs[CANDIDATE].run_id if CANDIDATE in runs else None,
            model=source,
            digest=version.digest,
            split=run.params.evaluate.split,
            methods=summary,
            champion_version=contest.champion_version,
            scores_path=str(folder / "scores.parquet"),
            seconds=time.monotonic() - started,
            cost=meter.cost(),
        )
        if CANDIDATE in contest.methods:
            page = _render(
                result, run, folder, trained, scores=scores, pairs=pairs, outputs=outputs
            )
            result = result.model_copy(update={"report_path": str(page)})
        result.save(run.report("evaluate"))
        _publish(result, runs, version=version, scores=scores, pairs=pairs, outputs=outputs)
    return result


def _training_of(model: str | None, trained: TrainResult | None, run: Run) -> TrainResult | None:
    """The training behind the model, for its curves; none for models from elsewhere."""
    if trained is None and model is None:
        return TrainResult.load(run.report("train"))
    path = run.report("train")
    if trained is None and path.is_file():
        known = TrainResult.load(path)
        return known if known.model_dir == model else None
    return trained


@dataclass(frozen=True)
class _Contest:
    """What is scored, by name, what each name stands for, and the champion of this time."""

    methods: dict[str, Enhance]
    identities: dict[str, str]
    champion_version: str | None = None


def _contest(source: str, run: Run) -> _Contest:
    """The baselines, the candidate, and the champion unless it is the candidate itself."""
    from mirnet.evaluation.baselines import baseline

    names = list(run.params.evaluate.baselines)
    if source.startswith("baseline:"):
        names = list(dict.fromkeys([*names, source.removeprefix("baseline:")]))
    methods = {name: baseline(name) for name in names}
    identities = {name: f"baseline:{name}" for name in names}
    if source.startswith("baseline:"):
        return _Contest(methods, identities)
    candidate = open_model(source, run)
    methods[CANDIDATE] = load_enhancer(candidate.folder, run)
    identities[CANDIDATE] = candidate.weights_digest or source
    current = champion(run)
    if current is None:
        return _Contest(methods, identities)
    digest = open_model(str(current.folder), run).weights_digest
    if digest != candidate.weights_digest:
        methods[CHAMPION] = load_enhancer(current.folder, run)
        identities[CHAMPION] = f"champion {digest}"
    return _Contest(methods, identities, current.version)


def _open_run(
    name: str, contest: _Contest, run: Run, *, version: DataVersion
) -> AbstractContextManager[TrackedRun]:
    """A run a method in MLflow; scoring the same on the same pairs goes on with the same run."""
    from mirnet.tracking import track

    split, identity = run.params.evaluate.split, contest.identities[name]
    tags = {"mirnet.method": name, "mirnet.model": identity, "mirnet.split": split}
    return track(
        run.settings,
        purpose="evaluate",
        name=f"{name} {split} {version.digest[:8]}",
        key=f"{version.digest} {split} {identity}",
        tags=run_tags(run, version) | tags,
    )


def _conduct(
    methods: Mapping[str, Enhance], pairs: Sequence[ScoredPair]
) -> dict[str, dict[str, float]]:
    """What the gate asks of the candidate besides scores: memory, and well lit pictures."""
    from mirnet.evaluation.conduct import peak_mib_per_megapixel, well_lit_psnr

    if CANDIDATE not in methods or not pairs:
        return {}
    enhance = methods[CANDIDATE]
    mib = peak_mib_per_megapixel(enhance, pairs[0][1])
    highs = [high for _, _, high in pairs[:_WELL_LIT_PICTURES]]
    kept = {WELL_LIT: well_lit_psnr(enhance, highs)}
    return {CANDIDATE: kept if mib is None else kept | {PEAK_MIB: mib}}


def _render(
    result: EvaluationResult,
    run: Run,
    folder: Path,
    trained: TrainResult | None,
    *,
    scores: pd.DataFrame,
    pairs: Sequence[ScoredPair],
    outputs: Outputs,
) -> Path:
    """The page of pictures, curves and figures."""
    from mirnet.evaluation.report import Page, render_report

    recipe = run.params.train
    facts = {
        "data": f"{result.digest} ({result.split})",
        "model": result.model,
        "preset": run.params.preset,
        "recipe": f"{recipe.optimizer}, {recipe.schedule}, batch {recipe.batch_size} of "
        f"{recipe.patch_size}x{recipe.patch_size}, {recipe.num_epochs} epochs",
    }
    if trained:
        facts |= {
            "parameters": f"{trained.num_parameters:,}",
            "training": f"{trained.seconds:.0f} s with {trained.num_workers} workers, best "
            f"epoch {trained.best_epoch}",
            "MLflow run": trained.run_id or "",
        }
    page = Page(
        title=f"{run.params.model.name} on {result.split}",
        candidate=CANDIDATE,
        facts=facts,
        history=trained.history if trained else (),
    )
    return render_report(
        folder / "index.html",
        page,
        scores=scores,
        summary=result.methods,
        pairs=pairs,
        outputs=outputs,
        params=run.params.evaluate,
        baseline=run.params.promote.baseline,
    )


def _publish(
    result: EvaluationResult,
    runs: Mapping[str, TrackedRun],
    *,
    version: DataVersion,
    scores: pd.DataFrame,
    pairs: Sequence[ScoredPair],
    outputs: Outputs,
) -> None:
    """Figures, tables and pictures to MLflow, so that analysts see all methods in one table."""
    from mirnet.evaluation.report import side_by_side

    shown = [pairs[i] for i in sorted({0, len(pairs) // 2, len(pairs) - 1})]
    for name, tracked in runs.items():
        tracked.log_data(version, context="evaluation", split=result.split)
        tracked.log_metrics(_metrics(result.methods[name]), data=version)
        tracked.log_table(scores[scores["method"] == name], "scores.json")
        for pair_id, low, high in shown:
            row = side_by_side([low, outputs[pair_id, name], high])
            tracked.log_image(row, key=pair_id.replace("/", " ").removesuffix(".png"))
    if result.cost and CANDIDATE in runs:
        runs[CANDIDATE].log_metrics(result.cost.metrics())
    if result.report_path and CANDIDATE in runs:
        runs[CANDIDATE].log_file(Path(result.report_path))


def _metrics(score: MethodScore) -> Mapping[str, float]:
    ends = {
        "eval/psnr_low": score.psnr_interval[0],
        "eval/psnr_high": score.psnr_interval[1],
        "eval/ssim_low": score.ssim_interval[0],
        "eval/ssim_high": score.ssim_interval[1],
    }
    means = {"eval/psnr": score.psnr, "eval/ssim": score.ssim}
    return means | ends | {f"eval/{name}": value for name, value in score.extra.items()}
