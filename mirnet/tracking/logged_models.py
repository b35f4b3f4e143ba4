"""LoggedModels: the model of a training run in MLflow, packaged and verified."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import WeightsError
from mirnet.models.files import read_config
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.runs import experiment_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

DIGEST_TAG = "mirnet.weights"


def weights_digest(model_dir: Path) -> str:
    """SHA-256 of the weights: two folders with the same digest hold the same network weights."""
    path = model_dir / "weights.safetensors"
    if not path.is_file():
        raise WeightsError(f"{model_dir} is no model folder: {path.name} is missing")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def log_model(
    model_dir: Path,
    *,
    run_id: str,
    settings: Settings,
    tags: Mapping[str, str] | None = None,
) -> str:
    """Package a model in the project's format, verify the package, and log it as the run's output.

    Idempotent: the same weights and run give the existing model, also after a crash in between.

    Returns:
        The id of the LoggedModel.

    Raises:
        WeightsError: the folder is not a model, or its package does not reproduce its output.
        ServiceError: MLflow cannot be reached or refuses access.
    """
    client, digest = connect(settings), weights_digest(model_dir)
    with service_errors(settings.mlflow_uri):
        run = client.get_run(run_id)
        model_id = _find(client, run.info.experiment_id, run_id, digest)
        if model_id is None:
            _fail_unfinished(client, run)
            all_tags = dict(tags or {}) | {DIGEST_TAG: digest}
            model_id = _create(client, model_dir, run=run, tags=all_tags, settings=settings)
        _show_as_output(client, run, model_id)
    return model_id


def find_model(run_id: str, digest: str, settings: Settings) -> str | None:
    """The id of a training run's LoggedModel of these weights, if it is READY; else none.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        experiment = client.get_experiment_by_name(experiment_name("train"))
        if experiment is None:
            return None
        return _find(client, experiment.experiment_id, run_id, digest)


def download(location: str, settings: Settings, target: Path | None) -> Path:
    """Download artifacts to a folder; without a target local ones are used in place."""
    from mlflow.artifacts import download_artifacts

    with service_errors(settings.mlflow_uri):
        return Path(
            download_artifacts(
                artifact_uri=location,
                dst_path=str(target) if target else None,
                tracking_uri=settings.mlflow_uri,
            )
        )


def _find(client: MlflowClient, experiment_id: str, run_id: str, digest: str) -> str | None:
    for model in _models_of(client, experiment_id, run_id):
        if str(model.status) == "READY" and model.tags.get(DIGEST_TAG) == digest:
            return str(model.model_id)
    return None


def _models_of(client: MlflowClient, experiment_id: str, run_id: str) -> list[LoggedModel]:
    return list(client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"))


def _create(
    client: MlflowClient,
    model_dir: Path,
    *,
    run: Run,
    tags: Mapping[str, str],
    settings: Settings,
) -> str:
    """Create, upload, download and verify a LoggedModel; FAILED if a step fails."""
    from mlflow.entities import LoggedModelStatus
    from mlflow.models import Model

    from mirnet.tracking.packaging import verify_package, write_package

    run_id = run.info.run_id
    logged = client.create_logged_model(
        run.info.experiment_id,
        name=read_config(model_dir).family,
        source_run_id=run_id,
        tags=dict(tags),
        params=dict(run.data.params),
        model_type="image-enhancement",
    )
    ready = False
    try:
        with tempfile.TemporaryDirectory(prefix="mirnet-package-") as folder:
            model = Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run_id,
                model_id=logged.model_id,
            )
            package = write_package(model_dir, Path(folder) / "package", mlflow_model=model)
            client.log_model_artifacts(logged.model_id, str(package))
            back = Path(folder) / "back"
            back.mkdir()
            verify_package(download(logged.artifact_location, settings, back))
        ready = True
    finally:
        status = LoggedModelStatus.READY if ready else LoggedModelStatus.FAILED
        client.finalize_logged_model(logged.model_id, status)
    return str(logged.model_id)


def _show_as_output(client: MlflowClient, run: Run, model_id: str) -> None:
    """Only once, since MLflow stores every call as a separate row."""
    from mlflow.entities import LoggedModelOutput

    shown = run.outputs.model_outputs if run.outputs else []
    if all(output.model_id != model_id for output in shown):
        client.log_outputs(run.info.run_id, [LoggedModelOutput(model_id, step=0)])


def _fail_unfinished(client: MlflowClient, run: Run) -> None:
    """Mark models of this run as FAILED whose upload a dead process did not complete."""
    for model in _models_of(client, run.info.experiment_id, run.info.run_id):
        if str(model.status) == "PENDING":
            client.finalize_logged_model(model.model_id, "FAILED")
