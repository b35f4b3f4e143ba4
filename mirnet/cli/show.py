"""Results as tables on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from mirnet.cli.progress import errors
from mirnet.cli.terminal import console, note
from mirnet.results import (
    Cost,
    EnhanceResult,
    EpochMetrics,
    EvaluationResult,
    ImageFate,
    PromotionResult,
    TrainResult,
    ValidationResult,
    VerifyResult,
)

if TYPE_CHECKING:
    from mirnet.batch.plan import BatchPlan

_KEPT = "by another model; enhance.on_new_model=redo does it again"


def show_validation(result: ValidationResult) -> None:
    """Findings, then the result and the page with the images."""
    if result.findings:
        table = Table("severity", "check", Column("finding", overflow="fold"))
        for finding in result.findings:
            table.add_row(finding.severity, finding.check, finding.message)
        console.print(table)
    pairs = ", ".join(f"{split} {count}" for split, count in result.num_pairs.items())
    verdict = Text("passed", style="green") if result.passed else Text("blocked", style="red")
    version = f": {pairs} pairs, version {result.version.digest}"
    console.print(verdict, version, sep="", soft_wrap=True)
    if result.docs_path:
        _say(f"page: {result.docs_path}")


def show_training(result: TrainResult) -> None:
    """The best epoch and where the weights are."""
    console.print(
        f"{result.model_name} ({result.num_parameters:,} parameters): "
        f"best validation PSNR {result.best_val_psnr:.2f} dB in epoch {result.best_epoch}, "
        f"{result.seconds:.0f} s with {result.num_workers} workers -> {result.model_dir}"
    )
    _show_cost(result.cost)


def _show_cost(cost: Cost | None) -> None:
    """Hours and energy; the price where prices are configured."""
    if cost is None:
        return
    price = f", {cost.price:.2f} {cost.currency}" if cost.price else ""
    _say(
        f"about {cost.cpu_hours:.3f} core hours, {cost.gpu_hours:.3f} GPU hours, "
        f"{cost.energy_kwh:.4f} kWh{price}"
    )


def evaluation_table(result: EvaluationResult) -> Table:
    """One row per method, in 80 columns; intervals of SSIM are in the JSON and on the page."""
    title = f"{result.split} pairs; gain: the model's PSNR minus the method's, per pair"
    table = Table("method", "PSNR", "95 %", "SSIM", "gain", "95 %", title=title)
    for score in result.methods.values():
        mean, low, high = score.gain or (None, None, None)
        table.add_row(
            score.method,
            f"{score.psnr:.2f}",
            "{:.2f} to {:.2f}".format(*score.psnr_interval),
            f"{score.ssim:.4f}",
            "" if mean is None else f"{mean:+.2f}",
            "" if low is None else f"{low:+.2f} to {high:+.2f}",
        )
    return table


def show_evaluation(result: EvaluationResult) -> None:
    """Scores with intervals and the path of the report."""
    console.print(evaluation_table(result))
    if result.report_path:
        _say(f"images: {result.report_path}")


def show_promotion(result: PromotionResult) -> None:
    """The decision with its reasons."""
    verdict = Text(result.alias or "refused", style="green" if result.alias else "red")
    console.print(f"{result.name} version {result.version}:", verdict)
    for reason in result.reasons:
        _say(f"  - {reason}")


def enhancement_table(result: EnhanceResult) -> Table:
    """One row per fate."""
    table = Table("images", "")
    for fate in ("planned", "enhanced", "passed_through", "skipped", "quarantined", "failed"):
        table.add_row(fate.replace("_", " "), str(getattr(result, fate)))
        if fate == "passed_through":
            for reason, number in result.reasons.items():
                if reason == "bright" or reason.startswith("harm:"):
                    table.add_row(f"  {reason}", str(number))
    for change in ("deleted", "changed"):
        if number := getattr(result, f"outputs_{change}"):
            table.add_row(f"outputs that were {change}", str(number))
    if result.known_bad:
        table.add_row("bad before already", str(result.known_bad))
    if result.kept:
        table.add_row(f"skipped, {_KEPT}", str(result.kept))
    for reason, count in result.passed_over.items():
        table.add_row(f"passed over: {reason}", str(count))
    return table


def enhancement_sentence(image: ImageFate, result: EnhanceResult) -> str:
    """Result of a single image: ``photo.jpg -> bright.jpg, 1.4 s, mirnet 3``."""
    from mirnet.batch.one_image import SKIPPED, why

    if image.output is None:
        return f"{image.input}: {image.fate}, {why(image)}"
    said = [f"{image.input} -> {image.output}"]
    if image.fate == SKIPPED:
        return f"{said[0]}, done already{f' {_KEPT}' if result.kept else ''}"
    if image.fate == "passed_through":
        said.append(f"unchanged ({why(image)})" if image.reason else "unchanged")
    return ", ".join([*said, f"{result.seconds:.1f} s", _model_of(result)])


def _model_of(result: EnhanceResult) -> str:
    """``mirnet 3``; of the model in the package also what it is, and its digest."""
    model = f"{result.model} {result.model_version}" if result.model_version else result.model
    if result.model_note is None:
        return model
    return f"{model} ({result.model_note}; weights {(result.weights_digest or '')[:12]})"


def show_enhancement(result: EnhanceResult) -> None:
    """Counts and the path of the manifest; for one image a sentence."""
    if result.picture is not None:
        _say(enhancement_sentence(result.picture, result))
        return
    if not result.planned and not result.held_by:
        over = ", ".join(f"{count} {reason}" for reason, count in result.passed_over.items())
        passed_over = f"; passed over: {over}" if over else ""
        _say(f"{result.source}: nothing to enhance yet{passed_over}")
        return
    _say(f"{result.source} -> {result.target}")
    if result.model_note:
        _say(f"model: {_model_of(result)}")
    if result.held_by:
        _say(result.held_by)
        return
    console.print(enhancement_table(result))
    for fate in result.worst:
        if fate.reason:
            _say(f"  - {fate.input}: {fate.fate.replace('_', ' ')}, {fate.reason}")
    _show_cost(result.cost)
    if result.manifest_uri:
        _say(f"manifest: {result.manifest_uri}")
    if result.harmful:
        rejected = sum(result.harm.values())
        _say(
            f"harmful: {rejected} of {rejected + result.enhanced} outputs of {result.model} failed "
            "the safety checks; these images are kept as they were"
        )
    if result.drifted:
        _say(f"drifted from the model's training images: {', '.join(result.drifted)}")


def show_verification(result: VerifyResult) -> None:
    """The problems by output, then the counts."""
    for found in result.problems:
        detail = f" ({found.detail})" if found.detail else ""
        _say(f"{found.output}: {found.problem}{detail}")
    if result.num_problems > len(result.problems):
        _say(f"and {result.num_problems - len(result.problems)} more")
    read = "versions and sizes only" if result.quick else f"{result.bytes_read / 1e6:.1f} MB read"
    _say(f"{result.target}: {result.outputs} outputs, {result.intact} intact; {read}")
    if result.not_checkable:
        _say(f"{result.not_checkable} not checkable: an earlier version wrote their rows")


@contextmanager
def training_progress(num_epochs: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """A bar on stderr with loss, PSNR and time left; a line per epoch without a terminal."""
    if not errors.is_terminal:
        yield lambda metrics: note(metrics.describe(num_epochs))
        return
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as progress:
        task = progress.add_task("starting", total=num_epochs)
        best = float("-inf")

        def show(metrics: EpochMetrics) -> None:
            nonlocal best
            best = max(best, metrics.val_psnr or best)
            text = f"loss {metrics.train_loss:.4f}, best {best:.2f} dB"
            text += f", {metrics.patches_per_s or 0:.1f} patches/s"
            progress.update(task, completed=metrics.epoch + 1, description=text)

        yield show


def show_plan(plan: BatchPlan) -> None:
    """The plan per image, then the counts."""
    for item in plan:
        _say(f"{item.info.key} -> {item.output_key}")
    counts = plan.counts
    for change in ("deleted", "changed"):
        if number := getattr(counts, f"outputs_{change}"):
            _say(f"{number} outputs were {change} since they were written")
    reasons = ", ".join(f"{reason} {count}" for reason, count in counts.passed_over.items())
    _say(
        f"{plan.num_todo} to enhance of {counts.planned} planned, "
        f"{counts.skipped} done already, {counts.passed_over.total()} passed over"
        + (f" ({reasons})" if reasons else "")
    )


def plan_document(plan: BatchPlan) -> dict[str, Any]:
    """The plan of :func:`show_plan`, for JSON."""
    counts = plan.counts
    return {
        "todo": plan.num_todo,
        "planned": counts.planned,
        "skipped": counts.skipped,
        "outputs_deleted": counts.outputs_deleted,
        "outputs_changed": counts.outputs_changed,
        "passed_over": dict(counts.passed_over),
        "images": [{"input": item.info.key, "output": item.output_key} for item in plan],
    }


def _say(text: str) -> None:
    """Print a line without wrapping, since it has file names."""
    console.print(text, highlight=False, soft_wrap=True)
