"""Two models against each other on one page, from their evaluations in MLflow."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.stages.models import load_enhancer, open_model
from mirnet.stages.run import RunConfig

if TYPE_CHECKING:
    from mirnet.evaluation.baselines import Enhance
    from mirnet.evaluation.comparison import Comparison
    from mirnet.evaluation.comparison_page import ComparedPair, Differs
    from mirnet.tracking.evaluations import SharedEvaluation, Subject
    from mirnet.tracking.queries import RunSummary

_TOLERATED_DB = 0.1
_OF_THE_PROCESS = ("mirnet.key", "mirnet.host", "mirnet.pid", "mirnet.process", "mirnet.flow_run")


@dataclass(frozen=True)
class ComparedModels:
    """What :func:`compare_models` found; ``note`` says what the page lacks."""

    page: Path
    verdict: str
    num_images: int
    note: str


def compare_models(
    first: str, second: str, run: RunConfig, *, data: Path, target: Path
) -> ComparedModels:
    """Write the page of two models that were scored on the same pairs.

    Scores are those of the evaluations in MLflow. The images that the page shows are made again
    from ``data`` with the models in MLflow; without these data the page has no images.

    Args:
        first: id or name of a training or an evaluation, or prefix of one, or
            ``models:/NAME@ALIAS`` and ``models:/NAME/NUMBER``.
        second: the same; differences are the first minus the second.
        target: the HTML file.

    Raises:
        UsageError: no such run or version, or both were not scored on the same pairs.
        UntrustedModel: a version has no valid signature.
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.evaluation.comparison import compare
    from mirnet.evaluation.comparison_page import ComparisonPage, render_comparison, verdict
    from mirnet.tracking.evaluations import find_subject, image_scores, shared_evaluation

    one, other = (find_subject(reference, run.settings) for reference in (first, second))
    shared = shared_evaluation(one, other)
    found = compare(
        image_scores(shared.first, run.settings),
        image_scores(shared.second, run.settings),
        run.params.evaluate,
    )
    labels = _labels(one, other, shared)
    facts = _facts(labels, shared, len(found.images))
    images, note = _images((one, other), shared, found, run, data)
    page = ComparisonPage(*labels, facts, _differs(one, other), note)
    render_comparison(target, page, found, images)
    told = verdict(*labels, found.psnr)
    return ComparedModels(target, told, len(images), note)


def _labels(one: Subject, other: Subject, shared: SharedEvaluation) -> tuple[str, str]:
    if one.label != other.label:
        return one.label, other.label
    ids = (shared.first.run_id[:8], shared.second.run_id[:8])
    return f"{one.label} ({ids[0]})", f"{other.label} ({ids[1]})"


def _facts(labels: tuple[str, str], shared: SharedEvaluation, number: int) -> dict[str, str]:
    facts = {"data": shared.digest, "images": f"{number}, split {shared.split}"}
    for label, scored in zip(labels, (shared.first, shared.second), strict=True):
        day = time.strftime("%Y-%m-%d %H:%M", time.localtime(scored.started_s))
        facts[label] = f"evaluation {scored.run_id}, {day}"
    return facts


def _differs(one: Subject, other: Subject) -> Sequence[Differs]:
    """Params and tags in which the trainings differ; those that name a process do so always."""
    from mirnet.evaluation.comparison_page import Differs
    from mirnet.tracking.queries import differences

    if one.training is None or other.training is None:
        return ()
    found = differences([one.training, other.training])
    return [
        Differs(d.key, *d.values)
        for d in found
        if d.kind != "metrics" and d.key not in _OF_THE_PROCESS
    ]


def _images(
    subjects: tuple[Subject, Subject],
    shared: SharedEvaluation,
    comparison: Comparison,
    run: RunConfig,
    data: Path,
) -> tuple[dict[str, ComparedPair], str]:
    """The images of the page, and what is to be said about them."""
    from mirnet.data.loading import load_pairs
    from mirnet.data.versioning import data_version
    from mirnet.evaluation.comparison_page import ComparedPair
    from mirnet.evaluation.metrics import psnr

    if not data.is_dir():
        return {}, f"Without images: {data} is no folder; --data names the scored data."
    version = data_version(data)
    if version.digest != shared.digest:
        return {}, f"Without images: {data} is version {version.digest}, not {shared.digest}."
    pair_ids = list(comparison.picks())
    pairs = dict(zip(pair_ids, load_pairs(data, pair_ids), strict=True))
    with ExitStack() as stack:
        enhance: list[Enhance] = []
        for subject, scored in zip(subjects, (shared.first, shared.second), strict=True):
            opened = _enhance(subject, scored, run, stack)
            if opened is None:
                return {}, f"Without images: MLflow has no model of {subject.label}."
            enhance.append(opened)
        images = {
            pair_id: ComparedPair(low, enhance[0](low), enhance[1](low), high)
            for pair_id, (low, high) in pairs.items()
        }
    rows = comparison.images.to_dict("records")
    recorded = {str(row["pair_id"]): (row["first"], row["second"]) for row in rows}
    apart = max(
        abs(psnr(output, pair.high) - score)
        for pair_id, pair in images.items()
        for output, score in zip((pair.first, pair.second), recorded[pair_id], strict=True)
    )
    if apart > _TOLERATED_DB:
        return images, (
            f"The images were made again on this machine; their PSNR is up to {apart:.1f} dB from "
            "that of the evaluation."
        )
    return images, ""


def _enhance(
    subject: Subject, scored: RunSummary, run: RunConfig, stack: ExitStack
) -> Enhance | None:
    """The scored method, ready to run; none if MLflow has no model of it."""
    from mirnet.evaluation.baselines import BASELINES, baseline
    from mirnet.tracking.evaluations import method_of, scored_model

    if method_of(scored) in BASELINES:
        return baseline(method_of(scored))
    if subject.version is not None:
        return load_enhancer(open_model(subject.version, run).folder, run)
    target = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mirnet-compare-")))
    folder = scored_model(scored, run.settings, target)
    return None if folder is None else load_enhancer(folder, run)
