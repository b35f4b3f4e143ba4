"""Links between a version, its logged model, its training run and its evaluation, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.notes import NOTE_TAG, model_page, run_page, version_page, with_section
from mirnet.tracking.versions import RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

_LINKS, _DECISION = "Links", "Decision of the gate"


def link(
    version: RegisteredVersion,
    *,
    evaluation_run: str | None,
    report: str | None,
    decision: str,
    settings: Settings,
) -> None:
    """Describe a version, its logged model and its runs, each with links to the others.

    Args:
        report: name of the report among the artifacts of the evaluation.
        decision: Markdown for the description of the version.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        links = _links(client, version, evaluation_run, report)
        for run_id in dict.fromkeys((version.run_id, evaluation_run)):
            if run_id is not None:
                note = client.get_run(run_id).data.tags.get(NOTE_TAG, "")
                client.set_tag(run_id, NOTE_TAG, with_section(note, _LINKS, links))
        if version.model_id is not None:
            note = client.get_logged_model(version.model_id).tags.get(NOTE_TAG, "")
            linked = {NOTE_TAG: with_section(note, _LINKS, links)}
            client.set_logged_model_tags(version.model_id, linked)
        text = client.get_model_version(version.name, version.version).description or ""
        text = with_section(with_section(text, _LINKS, links), _DECISION, decision)
        client.update_model_version(version.name, version.version, text)


def _links(
    client: MlflowClient, version: RegisteredVersion, evaluation_run: str | None, report: str | None
) -> str:
    found = [f"[{version.label}]({version_page(version.name, version.version)})"]
    if version.model_id is not None:
        model = client.get_logged_model(version.model_id)
        found.append(f"[logged model]({model_page(model.experiment_id, version.model_id)})")
    if version.run_id not in (
        None,
        evaluation_run,
    ):  # not trained here: registered by its evaluation
        run = client.get_run(version.run_id).info
        found.append(f"[training run]({run_page(run.experiment_id, run.run_id)})")
    if evaluation_run is not None:
        scored = client.get_run(evaluation_run)
        page = run_page(scored.info.experiment_id, scored.info.run_id)
        found.append(f"[evaluation run]({page}){_scores(scored.data.metrics)}")
        if report is not None:
            found.append(f"[report with images]({page}/artifacts/{report})")
    # one line: MLflow folds long descriptions
    return " · ".join(found)


def _scores(metrics: Mapping[str, float]) -> str:
    if not {"eval/psnr", "eval/ssim"} <= metrics.keys():
        return ""
    return f": {metrics['eval/psnr']:.2f} dB, SSIM {metrics['eval/ssim']:.3f}"
