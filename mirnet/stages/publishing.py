"""Publication of an evaluation: the report, and runs in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.results import DataVersion, EvaluationResult, MethodScore, TrainResult
from mirnet.stages.run import RunConfig

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

    from mirnet.evaluation.scoring import ScoredPair
    from mirnet.tracking import TrackedRun

    Outputs = dict[tuple[str, str], NDArray[np.uint8]]


@dataclass(frozen=True)
class Evaluated:
    """Scores, one row per image and method, with the images."""

    candidate: str
    version: DataVersion
    scores: pd.DataFrame
    pairs: Sequence[ScoredPair]
    outputs: Outputs


def render(
    result: EvaluationResult,
    evaluated: Evaluated,
    run: RunConfig,
    target: Path,
    trained: TrainResult | None,
) -> Path:
    """Write the report with images, curves and scores."""
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
        title=_title(result, evaluated, run.params.model.name if trained else result.model),
        candidate=evaluated.candidate,
        run_id=result.run_id or "",
        facts=facts,
        history=trained.history if trained else (),
    )
    return render_report(
        target,
        page,
        scores=evaluated.scores,
        summary=result.methods,
        pairs=evaluated.pairs,
        outputs=evaluated.outputs,
        baseline=run.params.promote.baseline,
    )


def _title(result: EvaluationResult, evaluated: Evaluated, model: str) -> str:
    own = result.methods[evaluated.candidate]
    return f"{model}: {own.num_images} dark images of {result.split}, {own.psnr:.1f} dB"


def publish(
    result: EvaluationResult,
    evaluated: Evaluated,
    runs: Mapping[str, TrackedRun],
    model_ids: Mapping[str, str | None],
) -> None:
    """Log metrics, tables and images to MLflow: all methods can be compared in one table there."""
    from mirnet.images.thumbnails import side_by_side

    scores, pairs, version = evaluated.scores, evaluated.pairs, evaluated.version
    shown = [pairs[i] for i in sorted({0, len(pairs) // 2, len(pairs) - 1})]
    for name, tracked in runs.items():
        tracked.log_data(version, context="evaluation", split=result.split)
        model_id = model_ids.get(name)
        if model_id is not None:
            tracked.log_used_model(model_id)
        tracked.log_metrics(_metrics(result.methods[name]), data=version, model_id=model_id)
        tracked.log_table(scores[scores["method"] == name], "scores.json")
        for pair_id, low, high in shown:
            row = side_by_side([low, evaluated.outputs[pair_id, name], high])
            # sections of MLflow's charts are in the order of the alphabet: images before scores
            tracked.log_image(row, key=f"compare/{pair_id.replace('/', ' ').removesuffix('.png')}")
        tracked.log_preview(
            side_by_side([shown[0][1], evaluated.outputs[shown[0][0], name], shown[0][2]])
        )
    candidate = runs[evaluated.candidate]
    gains = _gain_metrics(result)
    cost = result.cost.metrics() if result.cost else {}
    model_id = model_ids.get(evaluated.candidate)
    candidate.log_metrics(gains | cost, data=version, model_id=model_id)
    if result.report_path:
        candidate.log_file(Path(result.report_path))


# of the images, not of the method
_NO_SCORES = ("width", "height")


def _gain_metrics(result: EvaluationResult) -> dict[str, float]:
    """The paired gain over each other method: mean, lower and upper bound."""
    found = {}
    for name, score in result.methods.items():
        if score.gain is not None:
            for ending, value in zip(("", "_low", "_high"), score.gain, strict=True):
                found[f"eval/gain_over_{name}{ending}"] = value
    return found


def _metrics(score: MethodScore) -> Mapping[str, float]:
    ends = {
        "eval/psnr_low": score.psnr_interval[0],
        "eval/psnr_high": score.psnr_interval[1],
        "eval/ssim_low": score.ssim_interval[0],
        "eval/ssim_high": score.ssim_interval[1],
    }
    means = {"eval/psnr": score.psnr, "eval/ssim": score.ssim}
    extra = {f"eval/{n}": value for n, value in score.extra.items() if n not in _NO_SCORES}
    return means | ends | extra
