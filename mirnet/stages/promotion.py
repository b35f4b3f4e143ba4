"""The stage ``promote``: registration, gate, optional manual approval, champion."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.errors import TrainingError, UsageError
from mirnet.results import Approval, EvaluationResult, PromotionResult, TrainResult
from mirnet.stages.models import (
    CANDIDATE,
    CHAMPION,
    HARM_SHARE,
    PEAK_MIB,
    WELL_LIT,
    champion,
    load_enhancer,
)
from mirnet.stages.run import RunConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mirnet.evaluation.gate import Decision
    from mirnet.evaluation.model_card import TrainedElsewhere
    from mirnet.tracking.registry import RegisteredVersion

CHALLENGER = "challenger"
_GATE, _REASONS, _WAITING = "mirnet.gate", "mirnet.gate_reasons", "wait"


def promote(
    run: RunConfig,
    *,
    trained: TrainResult | None = None,
    evaluation: EvaluationResult | None = None,
    model_dir: Path | None = None,
) -> PromotionResult:
    """Register the trained model, apply the gate, and make it the champion if it passes.

    With ``promote.approval_within_s`` it becomes the challenger instead and waits for
    :func:`resolve_approval`. A refused version stays registered with the reasons as tags; the
    champion is not touched.

    Args:
        model_dir: a model that was not trained here, in place of ``trained``. Its version belongs
            to the run of its evaluation, and has neither a data digest nor a commit.

    Raises:
        UsageError: nothing was trained or evaluated yet, the evaluation is of another model, or
            there is no key to sign with.
        UntrustedModel: the champion is not signed, or its alias was moved by something else.
        GateRefused: another model became champion since the evaluation.
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.tracking import aliases
    from mirnet.tracking.registry import sign_decision
    from mirnet.tracking.trust import gate_decision, signing_key

    signing_key(run.settings)  # before anything is registered
    if model_dir is not None and not model_dir.is_dir():
        raise UsageError(f"{model_dir}: no such model folder; `mirnet weights import` writes one")
    if model_dir is None:
        trained = trained or TrainResult.load(run.report("train"))
    evaluation = evaluation or EvaluationResult.load(run.report("evaluate"))
    if model_dir is not None:
        version = _register_other(run, model_dir, evaluation)
        _describe(run, version, _from_folder(model_dir), evaluation)
    elif trained is not None:
        version = _register(run, trained, evaluation)
        _describe(run, version, trained, evaluation)
    current = champion(run)
    # an earlier process died between the move of the alias and its record
    cut_off = (
        current is not None
        and current.ref.version == version.version
        and version.tags.get(_GATE) in (None, _WAITING)
    )
    same_weights = current is not None and current.ref.weights_digest == version.weights_digest
    decision = _decide(run, evaluation, same_weights=same_weights and not cut_off)
    result = PromotionResult(
        promoted=decision.promote,
        reasons=decision.reasons,
        name=version.name,
        version=version.version,
        alias=None if decision.outcome == "refuse" else CHAMPION,
        previous_version=evaluation.champion_version,
        run_id=version.run_id,
    )
    why = "; ".join(decision.reasons)
    if decision.promote and run.params.promote.approval_within_s and not cut_off:
        gate = gate_decision("wait", *decision.reasons)
        aliases.challenge(version, why=why, settings=run.settings, gate=gate)
        result = result.model_copy(update={"promoted": False, "alias": CHALLENGER})
    elif decision.promote:
        aliases.promote(
            version,
            why=why,
            settings=run.settings,
            expected_champion=evaluation.champion_version,
            gate=gate_decision("promote", *decision.reasons),
        )
    elif current is None or current.ref.version != version.version:
        sign_decision(version, gate_decision(decision.outcome, *decision.reasons), run.settings)
    _record(run, result, evaluation, decision)
    return result


def resolve_approval(
    run: RunConfig, waiting: PromotionResult, evaluation: EvaluationResult, approval: Approval
) -> PromotionResult:
    """Make the challenger champion if it was approved; otherwise remove the alias.

    Raises:
        GateRefused: another model became champion since the evaluation.
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.evaluation.gate import Decision, GateCheck
    from mirnet.tracking import aliases, registry
    from mirnet.tracking.trust import gate_decision

    said = f"{'approved' if approval.approved else 'refused'} by {approval.who or 'somebody'}"
    said += f": {approval.why}" if approval.why else ""
    settings = run.settings
    version = registry.get_version(f"models:/{waiting.name}/{waiting.version}", settings)
    if approval.approved:
        aliases.promote(
            version,
            why="; ".join((said, *waiting.reasons)),
            settings=settings,
            expected_champion=evaluation.champion_version,
            gate=gate_decision("promote", said, *waiting.reasons),
        )
    else:
        aliases.withdraw(waiting.name, waiting.version, why=said, settings=settings)
        registry.sign_decision(version, gate_decision("refuse", said, *waiting.reasons), settings)
    gate = tuple(GateCheck("gate", True, reason) for reason in waiting.reasons)
    decision = Decision(
        "promote" if approval.approved else "refuse",
        (*gate, GateCheck("approval", approval.approved, said)),
    )
    update = {
        "promoted": approval.approved,
        "alias": CHAMPION if approval.approved else None,
        "reasons": decision.reasons,
    }
    result = waiting.model_copy(update=update)
    _record(run, result, evaluation, decision)
    return result


def undo_promotion(run: RunConfig, result: PromotionResult) -> None:
    """Restore the aliases from before a promotion, if it is still the latest."""
    from mirnet.tracking import aliases

    changes = [
        change
        for change in aliases.history(result.name, run.settings)
        if change.action == "promote" and change.version == result.version
    ]
    if result.promoted and changes:
        aliases.undo(changes[-1], why="a later step of the flow failed", settings=run.settings)


def check_champion(run: RunConfig, *, version: str) -> None:
    """Load the champion as the nightly flow does and run it on one small image.

    Raises:
        TrainingError: the champion is another version, or its output has another size.
        WeightsError: it does not load.
    """
    import numpy as np

    current = champion(run)
    if current is None or current.ref.version != version:
        there = current.ref.version if current else "none"
        raise TrainingError(f"the champion should be version {version} and is {there}")
    dark = np.full((33, 47, 3), 12, np.uint8)
    if load_enhancer(current.folder, run)(dark).shape != dark.shape:
        raise TrainingError(f"{current.ref.name} version {version} changes the size of its input")


def _register(
    run: RunConfig, trained: TrainResult, evaluation: EvaluationResult
) -> RegisteredVersion:
    from mirnet.data.versioning import git_commit
    from mirnet.tracking import registry

    if trained.run_id is None or evaluation.model != trained.model_dir:
        raise UsageError(
            f"the evaluation is of {evaluation.model}, the last training gave "
            f"{trained.model_dir}: run `mirnet evaluate` first"
        )
    return registry.register(
        Path(trained.model_dir),
        name=run.params.promote.name,
        run_id=trained.run_id,
        settings=run.settings,
        tags={
            registry.DATA_TAG: trained.digest,
            registry.COMMIT_TAG: git_commit(Path.cwd()),
            "mirnet.evaluation_run": evaluation.run_id,
            "mirnet.flow_run": run.flow_run_id,
        },
    )


def _register_other(
    run: RunConfig, model_dir: Path, evaluation: EvaluationResult
) -> RegisteredVersion:
    """Register a folder whose weights were evaluated, whoever trained them."""
    from mirnet.tracking import registry
    from mirnet.tracking.logged_models import weights_digest
    from mirnet.tracking.queries import find_run

    evaluated = evaluation.run_id and find_run(evaluation.run_id, run.settings)
    if not evaluated or evaluated.tags.get("mirnet.model") != weights_digest(model_dir):
        raise UsageError(
            f"the evaluation is of {evaluation.model}, with other weights than {model_dir}: "
            f"run `mirnet evaluate --model {model_dir}` first"
        )
    return registry.register(
        model_dir,
        name=run.params.promote.name,
        run_id=evaluated.run_id,
        settings=run.settings,
        tags={
            "mirnet.origin": "not trained here",
            "mirnet.evaluation_run": evaluated.run_id,
            "mirnet.flow_run": run.flow_run_id,
        },
    )


def _from_folder(model_dir: Path) -> TrainedElsewhere:
    """What a model folder says of itself."""
    from mirnet.evaluation.model_card import TrainedElsewhere
    from mirnet.models import num_parameters
    from mirnet.models.files import read_description

    description = read_description(model_dir)
    config = description.config()
    return TrainedElsewhere(str(config), num_parameters(config.build()), description.extra)


def _describe(
    run: RunConfig,
    version: RegisteredVersion,
    trained: TrainResult | TrainedElsewhere,
    evaluation: EvaluationResult,
) -> None:
    """The model card: a file of the package and the description of the version."""
    import pandas as pd

    from mirnet.evaluation.model_card import CARD, ModelCard
    from mirnet.tracking import registry

    scores = pd.read_parquet(evaluation.scores_path)
    own = scores[scores["method"] == CANDIDATE].sort_values("psnr")
    card = ModelCard(
        version.label,
        trained,
        recipe=_recipe(run, version, trained),
        git_commit=version.ref.git_commit,
        scored=evaluation,
        candidate=CANDIDATE,
        worst=(str(own["pair_id"].iloc[0]), float(own["psnr"].iloc[0])) if len(own) else None,
    )
    registry.add_card(version, CARD, card.text(), run.settings)


def _recipe(
    run: RunConfig, version: RegisteredVersion, trained: TrainResult | TrainedElsewhere
) -> Mapping[str, str]:
    """Params of the training run; the run of a model from a folder is its evaluation."""
    from mirnet.tracking.queries import params_of

    if version.run_id is None or not isinstance(trained, TrainResult):
        return {}
    return params_of(version.run_id, run.settings)


def _today() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d")


def _rules(decision: Decision) -> list[str]:
    """The rules of the gate as a Markdown list."""
    return [
        f"- {'passed' if check.passed else '**failed**'}, {check.rule}: {check.reason}".replace(
            "a*b*", r"a\*b\*"
        )
        for check in decision.checks
    ]


def _decide(run: RunConfig, evaluation: EvaluationResult, *, same_weights: bool) -> Decision:
    import pandas as pd

    from mirnet.evaluation.gate import decide, gather_evidence

    extra = evaluation.methods[CANDIDATE].extra
    evidence = gather_evidence(
        pd.read_parquet(evaluation.scores_path),
        candidate=CANDIDATE,
        champion=CHAMPION if CHAMPION in evaluation.methods else None,
        params=run.params.promote,
        evaluate=run.params.evaluate,
        same_weights=same_weights,
        well_lit_psnr=extra.get(WELL_LIT),
        harm_share=extra.get(HARM_SHARE),
        mib_per_megapixel=extra.get(PEAK_MIB),
    )
    return decide(evidence, run.params.promote)


def _record(
    run: RunConfig, result: PromotionResult, evaluation: EvaluationResult, decision: Decision
) -> None:
    """Write the decision to the report, the runs and version in MLflow, and the reports folder."""
    from mirnet.evaluation.report import add_decision
    from mirnet.tracking import links, registry
    from mirnet.tracking.runs import attach

    waits = result.alias == CHALLENGER
    outcome = f"{result.name} version {result.version} " + {
        CHAMPION: "is champion",
        CHALLENGER: "is challenger and waits for a person",
        None: "stays without an alias",
    }.get(result.alias, "")
    # the gate's tag comes last: if it is missing, the next run writes the whole record
    tags = {
        _REASONS: "; ".join(result.reasons)[:4000],
        _GATE: _WAITING if waits else decision.outcome,
    }
    if evaluation.run_id is not None:
        scored = attach(evaluation.run_id, run.settings)
        page = Path(evaluation.report_path or "")
        if add_decision(page, evaluation.run_id, decision, outcome=outcome):
            scored.log_file(page)
        scored.set_tags({**tags, "mirnet.version": result.version})
    links.link(
        registry.get_version(f"models:/{result.name}/{result.version}", run.settings),
        evaluation_run=evaluation.run_id,
        report=Path(evaluation.report_path).name if evaluation.report_path else None,
        decision="\n".join([f"{_today()}: {outcome}.", "", *_rules(decision)]),
        settings=run.settings,
    )
    registry.tag_version(result.name, result.version, tags, run.settings)
    result.save(run.report("promote"))
