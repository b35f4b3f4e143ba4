"""The stage that decides: register, gate, champion."""

from __future__ import annotations

from pathlib import Path

from mirnet.errors import TrainingError, UsageError
from mirnet.results import EvaluationResult, PromotionResult, TrainResult
from mirnet.stages.models import (
    CANDIDATE,
    CHAMPION,
    PEAK_MIB,
    WELL_LIT,
    champion,
    load_enhancer,
)
from mirnet.stages.run import Run


def promote(
    run: Run,
    *,
    trained: TrainResult | None = None,
    evaluation: EvaluationResult | None = None,
) -> PromotionResult:
    """Register the trained model, ask the gate, and make it the champion if it agrees.

    A refused version stays registered with the reasons as tags; the champion is not touched.

    Raises:
        UsageError: nothing was trained or evaluated yet, or the evaluation is of another model.
        GateRefused: another model became champion since the evaluation.
        ServiceError: MLflow cannot be reached.
    """
    import pandas as pd

    from mirnet.data.versioning import git_commit
    from mirnet.evaluation.gate import decide, gather_evidence
    from mirnet.tracking import aliases, registry

    trained = trained or TrainResult.load(run.report("train"))
    evaluation = evaluation or EvaluationResult.load(run.report("evaluate"))
    if trained.run_id is None or evaluation.model != trained.model_dir:
        raise UsageError(
            f"the evaluation is of {evaluation.model}, the last training gave "
            f"{trained.model_dir}: run `mirnet evaluate` first"
        )
    params = run.params.promote
    version = registry.register(
        Path(trained.model_dir),
        name=params.name,
        run_id=trained.run_id,
        settings=run.settings,
        tags={
            registry.DATA_TAG: trained.digest,
            registry.COMMIT_TAG: git_commit(Path.cwd()),
            "mirnet.evaluation_run": evaluation.run_id,
            "mirnet.flow_run": run.flow_run_id,
        },
    )
    current = champion(run)
    decision = decide(
        gather_evidence(
            pd.read_parquet(evaluation.scores_path),
            candidate=CANDIDATE,
            champion=CHAMPION if CHAMPION in evaluation.methods else None,
            params=params,
            evaluate=run.params.evaluate,
            same_weights=current is not None
            and current.tags.get(registry.DIGEST_TAG) == version.weights_digest,
            well_lit_psnr=evaluation.methods[CANDIDATE].extra.get(WELL_LIT),
            mib_per_megapixel=evaluation.methods[CANDIDATE].extra.get(PEAK_MIB),
        ),
        params,
    )
    why = "; ".join(decision.reasons)
    if decision.promote:
        aliases.promote(
            version,
            why=why,
            settings=run.settings,
            expected_champion=evaluation.champion_version,
        )
    registry.tag_version(
        version,
        {"mirnet.gate": decision.outcome, "mirnet.gate_reasons": why[:4000]},
        run.settings,
    )
    result = PromotionResult(
        promoted=decision.promote,
        reasons=decision.reasons,
        name=params.name,
        version=version.version,
        alias=None if decision.outcome == "refuse" else "champion",
        previous_version=current.version if current else None,
        run_id=trained.run_id,
    )
    result.save(run.report("promote"))
    return result


def undo_promotion(run: Run, result: PromotionResult) -> None:
    """Put the aliases back to where they were before a promotion that is still in force."""
    from mirnet.tracking import aliases

    changes = [
        change
        for change in aliases.history(result.name, run.settings)
        if change.action == "promote" and change.version == result.version
    ]
    if result.promoted and changes:
        aliases.undo(changes[-1], why="a later step of the flow failed", settings=run.settings)


def check_champion(run: Run, *, version: str) -> None:
    """Load the champion as the nightly flow does and run it on one small picture.

    Raises:
        TrainingError: the champion is another version, or gives no picture.
        WeightsError: it does not load.
    """
    import numpy as np

    current = champion(run)
    if current is None or current.version != version:
        there = current.version if current else "none"
        raise TrainingError(f"the champion should be version {version} and is {there}")
    dark = np.full((33, 47, 3), 12, np.uint8)
    if load_enhancer(current.folder, run)(dark).shape != dark.shape:
        raise TrainingError(f"{current.name} version {version} changes the size of its input")
