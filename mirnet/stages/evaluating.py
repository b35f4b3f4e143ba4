"""The stage that scores: a model, the baselines and the champion on the same pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.results import DataVersion, EvaluationResult, MethodScore, TrainResult
from mirnet.stages.data import split_roles
from mirnet.stages.models import (
    CANDIDATE,
    CHAMPION,
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

    started = time.monotonic()
    check_tracking(run.settings)
    trained = _training_of(model, trained, run)
    source = model or (trained.model_dir if trained else "")
    methods, champion_version = _contest(source, run)
    version = data_version(data)
    ids = split_roles(data, run)["val" if run.params.evaluate.split == "val" else "eval"]
    pairs = [(i, low, high) for i, (low, high) in zip(ids, load_pairs(data, ids), strict=True)]
    outputs: Outputs = {}
    scores, summary = score_pairs(pairs, methods, run.params.evaluate, outputs=outputs)
    if CANDIDATE in methods:
        summary[CANDIDATE] = _with_well_lit(summary[CANDIDATE], methods[CANDIDATE], pairs)
    folder = run.settings.reports_dir / "evaluation"
    folder.mkdir(parents=True, exist_ok=True)
    scores.to_parquet(folder / "scores.parquet", index=False)
    result = EvaluationResult(
        model=source,
        digest=version.digest,
        split=run.params.evaluate.split,
        methods=summary,
        champion_version=champion_version,
        scores_path=str(folder / "scores.parquet"),
        seconds=time.monotonic() - started,
    )
    if CANDIDATE in methods:
        page = _render(result, run, folder, trained, scores=scores, pairs=pairs, outputs=outputs)
        result = result.model_copy(update={"report_path": str(page)})
    result = _publish(result, run, version=version, scores=scores)
    result.save(run.report("evaluate"))
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


def _contest(source: str, run: Run) -> tuple[dict[str, Enhance], str | None]:
    """What is scored, by name, and the version of the champion at this time.

    The champion is left out where it is the candidate itself.
    """
    from mirnet.evaluation.baselines import baseline

    methods = {name: baseline(name) for name in run.params.evaluate.baselines}
    if source.startswith("baseline:"):
        name = source.removeprefix("baseline:")
        return methods | {name: baseline(name)}, None
    candidate = open_model(source, run)
    methods[CANDIDATE] = load_enhancer(candidate.folder, run)
    current = champion(run)
    if current is None:
        return methods, None
    if open_model(str(current.folder), run).weights_digest != candidate.weights_digest:
        methods[CHAMPION] = load_enhancer(current.folder, run)
    return methods, current.version


def _with_well_lit(
    score: MethodScore, enhance: Enhance, pairs: Sequence[ScoredPair]
) -> MethodScore:
    """Add what the method leaves of pictures that need no enhancement: PSNR to the input, dB."""
    from mirnet.evaluation.metrics import psnr

    highs = [high for _, _, high in pairs[:_WELL_LIT_PICTURES]]
    kept = sum(psnr(enhance(high), high) for high in highs) / len(highs)
    return score.model_copy(update={"extra": score.extra | {WELL_LIT: kept}})


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
    result: EvaluationResult, run: Run, *, version: DataVersion, scores: pd.DataFrame
) -> EvaluationResult:
    """A run a method in MLflow, so that analysts see all of them in one table."""
    from mirnet.tracking import track

    methods: dict[str, MethodScore] = {}
    for name, score in result.methods.items():
        what = result.model if name == CANDIDATE else name
        with track(
            run.settings,
            purpose="evaluate",
            name=f"{name} {result.split} {version.digest[:8]}",
            key=f"{version.digest} {result.split} {what}",
            tags=run_tags(run, version) | {"mirnet.method": name, "mirnet.model": what},
        ) as tracked:
            tracked.log_data(version, context="evaluation", split=result.split)
            tracked.log_metrics(_metrics(score), data=version)
            tracked.log_table(scores[scores["method"] == name], "scores.json")
            if name == CANDIDATE and result.report_path:
                tracked.log_file(Path(result.report_path))
            methods[name] = score.model_copy(update={"run_id": tracked.run_id})
    candidate = methods.get(CANDIDATE)
    return result.model_copy(
        update={"methods": methods, "run_id": candidate.run_id if candidate else None}
    )


def _metrics(score: MethodScore) -> Mapping[str, float]:
    ends = {
        "eval/psnr_low": score.psnr_interval[0],
        "eval/psnr_high": score.psnr_interval[1],
        "eval/ssim_low": score.ssim_interval[0],
        "eval/ssim_high": score.ssim_interval[1],
    }
    means = {"eval/psnr": score.psnr, "eval/ssim": score.ssim}
    return means | ends | {f"eval/{name}": value for name, value in score.extra.items()}
