"""The retrain flow: version -> validate -> train -> evaluate -> promote.

``python -m flows.retrain --data DIR --params PRESET`` runs it here; deployments run the same.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import UUID

from prefect import flow, get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run
from prefect.transactions import Transaction, transaction

from flows.approval import ask_person, check_approval
from flows.events import announce_promotion
from flows.policy import exit_code_of, io_task, load_run_config
from flows.process_group import leave_foreground_group
from flows.run_names import add_data_version, by_date
from flows.safety import (
    Address,
    markdown_text,
    redacted_errors,
    redacting,
    without_secrets,
)
from flows.tables import table_row, vertical
from flows.time_limits import Limit, flow_limit, limited
from flows.turns import turn
from mirnet import stages
from mirnet.config import refuse_credentials
from mirnet.errors import GateRefused
from mirnet.results import (
    Approval,
    DataVersion,
    EpochMetrics,
    EvaluationResult,
    PromotionResult,
    RetrainResult,
    TrainResult,
    ValidationResult,
)
from mirnet.stages import RunConfig

_LIMITS: tuple[Limit, ...] = ("check", "stage", "stage", "train", "stage", "stage", "stage")
"""Of one attempt of the tasks that do the work: services, version, validate, train, evaluate,
promote, champion. Tables and pages for Prefect, and further attempts, are within the same sum."""


@io_task("check services", "check")
def check_services(run: RunConfig) -> None:
    """Fail before any compute is spent if MLflow is unreachable."""
    stages.check_services(run)


@io_task("check version", "stage")
def check_version(data: str, *, allow_modified: bool) -> DataVersion:
    """The digest of the data; modified data stop the flow unless allowed."""
    version = stages.check_version(Path(data), allow_modified=allow_modified)
    get_run_logger().info(
        "data %s: %s, %d files", version.digest, version.status, version.num_files
    )
    return version


@io_task("publish validation", "stage")
def publish_validation(run: RunConfig, result: ValidationResult) -> str:
    """Findings and their page to MLflow, before a refusal stops the flow."""
    return stages.publish_validation(run, result)


@task(name="validate", cache_policy=NO_CACHE)
@redacting
@limited("validate", "stage")
def validate(data: str, run: RunConfig, version: DataVersion) -> ValidationResult:
    """Great Expectations over the manifest; critical findings stop the flow by name."""
    result = stages.validate(Path(data), run, version=version)
    page = publish_validation(run, result)
    # the message names the pair and the value
    in_message = frozenset({"pair", "other", "value"})
    rows = [table_row(finding, without=in_message) for finding in result.findings]
    if rows:
        create_table_artifact(
            key="validation",
            table=rows,
            description=f"Findings on {version.digest}, with images: {page}",
        )
    if not result.passed:
        raise GateRefused(stages.blocking_message(result))
    return result


@io_task("train", "train")
def train(data: str, run: RunConfig, validation: ValidationResult, run_name: str) -> TrainResult:
    """Ray Train. A retry resumes from the last checkpoint, since it has the same run name."""
    num_epochs = run.params.train.num_epochs
    bar = create_progress_artifact(0.0, key="training", description=f"{num_epochs} epochs")
    assert isinstance(bar, UUID)

    def progress(epoch: EpochMetrics) -> None:
        done = 100 * (epoch.epoch + 1) / num_epochs
        update_progress_artifact(bar, progress=done, description=epoch.describe(num_epochs))

    return stages.train(
        Path(data),
        run,
        version=validation.version,
        validation=validation,
        model_dir=run.settings.workspace / "models" / run_name,
        run_name=run_name,
        progress=progress,
    )


@io_task("evaluate", "stage")
def evaluate(data: str, run: RunConfig, trained: TrainResult) -> EvaluationResult:
    """Score the best weights and the baselines, tracked in MLflow."""
    result = stages.evaluate(Path(data), run, trained=trained)
    create_table_artifact(
        key="evaluation",
        table=[
            {"method": s.method, "psnr": round(s.psnr, 3), "ssim": round(s.ssim, 4)}
            for s in result.methods.values()
        ],
        description=f"{result.split} of {result.digest}. Images: {result.report_path}",
    )
    show_report(result)
    return result


def show_report(result: EvaluationResult) -> None:
    """Where the images are; browsers do not follow a link from Prefect's page to a file."""
    if result.report_url:
        text = "images, scores and the decision"
        create_link_artifact(key="report", link=result.report_url, link_text=text)
    elif result.report_path:
        path = markdown_text(str(Path(result.report_path).resolve()))
        text = f"Images, scores and the decision are a file on the machine of the run: {path}"
        create_markdown_artifact(key="report", markdown=text)


@io_task("promote", "stage")
def promote(run: RunConfig, trained: TrainResult, evaluation: EvaluationResult) -> PromotionResult:
    """Register, ask the gate, and move the alias if it passes."""
    result = stages.promote(run, trained=trained, evaluation=evaluation)
    show_promotion(result)
    return result


@io_task("settle", "stage")
def resolve_approval(
    run: RunConfig, waiting: PromotionResult, evaluation: EvaluationResult, approval: Approval
) -> PromotionResult:
    """Move the alias according to the manual approval."""
    result = stages.resolve_approval(run, waiting, evaluation, approval)
    show_promotion(result)
    return result


def show_promotion(result: PromotionResult) -> None:
    """The decision with its reasons, as artifact of the flow run."""
    reasons = "\n".join(f"- {markdown_text(reason)}" for reason in result.reasons)
    name = markdown_text(result.name)
    markdown = f"{name} version {result.version}: **{result.alias or 'refused'}**"
    create_markdown_artifact(key="promotion", markdown=f"{markdown}\n\n{reasons}")


@resolve_approval.on_rollback
@promote.on_rollback
def take_back(txn: Transaction) -> None:
    """A later step failed: restore the aliases."""
    stages.undo_promotion(txn.get("run"), txn.get("promotion"))


@io_task("check champion", "stage")
def check_champion(run: RunConfig, promotion: PromotionResult) -> None:
    """Check that the new champion loads from the registry as in the nightly flow."""
    stages.check_champion(run, version=promotion.version)


def put_into_service(run: RunConfig, move: Callable[[], PromotionResult]) -> PromotionResult:
    """Move the alias and check the new champion; if the check fails, restore the aliases."""
    with transaction() as txn:
        txn.set("run", run)
        promotion = move()
        txn.set("promotion", promotion)
        if promotion.promoted:
            check_champion(run, promotion)
    return promotion


def decide(run: RunConfig, trained: TrainResult, evaluation: EvaluationResult) -> PromotionResult:
    """The gate's decision, and manual approval if the params require it."""
    promotion = put_into_service(run, lambda: promote(run, trained, evaluation))
    within_s = run.params.promote.approval_within_s
    if promotion.alias != stages.CHALLENGER or within_s is None:
        return promotion
    waiting, approval = promotion, ask_person(promotion, evaluation, within_s)
    if not approval.approved:
        # not a task: after an expired pause the server lets none start
        return stages.resolve_approval(run, waiting, evaluation, approval)
    return put_into_service(run, lambda: resolve_approval(run, waiting, evaluation, approval))


def show_cost(trained: TrainResult, evaluation: EvaluationResult) -> None:
    """Hours, price and energy per stage, as artifact of the flow run."""
    costs = {"train": trained.cost, "evaluate": evaluation.cost}
    create_table_artifact(
        key="cost",
        table=vertical({stage: cost.model_dump() for stage, cost in costs.items() if cost}),
        description="Busy cores and GPUs by the configured prices and watts; an estimate.",
    )


@without_secrets
@flow(name="retrain", description=__doc__, flow_run_name=by_date)
def retrain(
    data: Address = "data",
    params: str = "cpu",
    overrides: list[str] | None = None,
    allow_modified: bool = False,
    resume: str | None = None,
) -> RetrainResult:
    """Train on one data version and promote the model if it is better.

    Args:
        data: Folder in the LoL layout.
        params: Preset name or path of a YAML file.
        overrides: Parameters to change, as section.key=value.
        allow_modified: Continue with data that differ from the pinned version.
        resume: Name of a stopped run to resume.

    Raises:
        GateRefused: validation blocked the data, or the gate refused the model.
    """
    with redacted_errors():
        refuse_credentials(data)
        run = load_run_config(params, overrides)
        within_s = run.params.promote.approval_within_s or 0
        with flow_limit("retrain", *_LIMITS, more_s=within_s):
            return _retrain(data, run, allow_modified, resume)


def _retrain(data: str, run: RunConfig, allow_modified: bool, resume: str | None) -> RetrainResult:
    check_services(run)
    check_approval(run.params.promote.approval_within_s)
    version = check_version(data, allow_modified=allow_modified)
    add_data_version(version)
    with turn("retrain"):
        validation = validate(data, run, version)
        trained = train(data, run, validation, resume or f"retrain-{flow_run.get_id()}")
        evaluation = evaluate(data, run, trained)
    promotion = decide(run, trained, evaluation)
    show_cost(trained, evaluation)
    if promotion.promoted or promotion.alias is None:
        announce_promotion(promotion)
    if promotion.alias is None:
        raise GateRefused(
            f"{promotion.name} version {promotion.version}: " + "; ".join(promotion.reasons)
        )
    return RetrainResult(
        validation=validation, train=trained, evaluation=evaluation, promotion=promotion
    )


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.retrain", description=__doc__)
    parser.add_argument("--data", default="data")
    parser.add_argument("--params", default="cpu", help="preset or YAML file")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    parser.add_argument("--allow-modified", action="store_true")
    parser.add_argument("--resume", metavar="NAME", help="a stopped run to resume")
    options = parser.parse_args(arguments)

    def run() -> None:
        from mirnet.cli.show import show_evaluation, show_promotion

        refuse_credentials(options.data)
        result = retrain(
            options.data, options.params, options.set, options.allow_modified, options.resume
        )
        show_evaluation(result.evaluation)
        show_promotion(result.promotion)

    return exit_code_of(run)


if __name__ == "__main__":
    leave_foreground_group()
    sys.exit(_main(sys.argv[1:]))
