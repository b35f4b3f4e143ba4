"""What MLflow has of the training of a registered version, to repeat it: params, tags, scores."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.params import Params, load_params, params_of_run
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.runs import experiment_name
from mirnet.tracking.versions import RegisteredVersion

if TYPE_CHECKING:
    from mlflow import MlflowClient

PARAMS = "params.yaml"
EVALUATION_TAG = "mirnet.evaluation_run"
_PREFIX = "mirnet."


@dataclass(frozen=True)
class RecordedTraining:
    """A training run.

    Attributes:
        params: complete; what the run does not have has its default.
        logged: parameters as MLflow has them, ``section.key`` to text.
        tags: those of Mirnet.
    """

    run_id: str
    name: str
    params: Params
    logged: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class RecordedScore:
    """Mean PSNR of an evaluation.

    Attributes:
        precision: arithmetic that it was scored with, ``enhance.precision``.
    """

    psnr: float
    split: str
    digest: str
    precision: str | None


def params_text(params: Params) -> str:
    """All params as YAML: the artifact :data:`PARAMS`, which ``--params`` takes."""
    return yaml.safe_dump(params.model_dump(by_alias=True, mode="json"), sort_keys=False)


def recorded_training(version: RegisteredVersion, settings: Settings) -> RecordedTraining:
    """The training of a version.

    Params are read from the artifact of the run; runs of earlier versions have only MLflow's own
    parameters, which are flat and text.

    Raises:
        UsageError: the version was not trained by Mirnet, or this version of Mirnet does not know
            one of its parameters.
        ServiceError: MLflow cannot be reached.
    """
    if version.run_id is None:
        raise UsageError(f"{version.label}: has no training run in MLflow")
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        run = client.get_run(version.run_id)
        experiment = client.get_experiment(run.info.experiment_id).name
        logged = dict(run.data.params)
        if experiment != experiment_name("train") or not logged:
            raise UsageError(f"{version.label}: was not trained here, so no recipe is recorded")
        whole = _artifact(client, version.run_id)
    return RecordedTraining(
        version.run_id,
        run.info.run_name,
        params=whole or params_of_run(logged),
        logged=logged,
        tags={k: v for k, v in run.data.tags.items() if k.startswith(_PREFIX)},
        metrics=run.data.metrics,
    )


def recorded_score(version: RegisteredVersion, settings: Settings) -> RecordedScore | None:
    """The evaluation that a version was registered with; none without one."""
    run_id = version.tags.get(EVALUATION_TAG)
    if run_id is None:
        return None
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        data = client.get_run(run_id).data
    psnr, split = data.metrics.get("eval/psnr"), data.tags.get("mirnet.split")
    if psnr is None or split is None:
        return None
    digest = data.tags.get("mirnet.data_digest", "")
    return RecordedScore(psnr, split, digest, data.params.get("enhance.precision"))


def _artifact(client: MlflowClient, run_id: str) -> Params | None:
    if all(artifact.path != PARAMS for artifact in client.list_artifacts(run_id)):
        return None
    with tempfile.TemporaryDirectory(prefix="mirnet-params-") as folder:
        return load_params(Path(client.download_artifacts(run_id, PARAMS, folder)))
