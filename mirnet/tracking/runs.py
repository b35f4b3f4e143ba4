"""MLflow runs: one experiment a purpose, readable names, found again by a key, always ended."""

from __future__ import annotations

import getpass
import logging
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from mirnet.config import Params, Settings
from mirnet.errors import ServiceError
from mirnet.results import DataVersion
from mirnet.tracking.client import artifact_root, connect, process_is_gone, service_errors

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Purpose = Literal["train", "evaluate"]
KEY_TAG, HOST_TAG, PID_TAG = "mirnet.key", "mirnet.host", "mirnet.pid"
_BATCH_OF_PARAMS = 100
_LONGEST_VALUE = 6000


def experiment_name(purpose: Purpose) -> str:
    """Experiments by purpose: ``mirnet-train`` and ``mirnet-evaluate``."""
    return f"mirnet-{purpose}"


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run and the ways to write to it. Holds no connection of its own state."""

    client: MlflowClient
    uri: str
    run_id: str
    experiment_id: str

    def log_params(self, params: Params) -> None:
        """All parameters, flat, as ``section.key``; those of a resumed run are there already."""
        from mlflow.entities import Param

        with service_errors(self.uri):
            known = self.client.get_run(self.run_id).data.params
            fresh = [
                Param(key, str(value)[:_LONGEST_VALUE])
                for key, value in params.flat().items()
                if key not in known
            ]
            for start in range(0, len(fresh), _BATCH_OF_PARAMS):
                self.client.log_batch(self.run_id, params=fresh[start : start + _BATCH_OF_PARAMS])

    def log_data(self, version: DataVersion, *, context: str, split: str | None = None) -> None:
        """Bind the run to a data version; MLflow shows DVC's digest as the data set's own.

        Args:
            context: What the data are for: training, evaluation, ...
        """
        from mlflow.entities import Dataset, DatasetInput, InputTag

        dataset = Dataset(
            name=dataset_name(version),
            digest=version.digest,
            source_type="dvc",
            source=f'{{"path": "{version.path}", "git_commit": "{version.git_commit or ""}"}}',
            profile=f'{{"num_files": {version.num_files}, "size": {version.size}}}',
        )
        tags = [InputTag("mlflow.data.context", context)]
        tags += [InputTag("mirnet.split", split)] if split else []
        with service_errors(self.uri):
            self.client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])

    def log_metrics(
        self,
        values: Mapping[str, float],
        *,
        step: int = 0,
        data: DataVersion | None = None,
        model_id: str | None = None,
    ) -> None:
        """Metrics named ``phase/name``, bound to the data and the model that they speak of."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [
            Metric(
                key,
                float(value),
                now,
                step,
                model_id=model_id,
                dataset_name=dataset_name(data) if data else None,
                dataset_digest=data.digest if data else None,
                run_id=self.run_id,
            )
            for key, value in values.items()
        ]
        with service_errors(self.uri):
            self.client.log_batch(self.run_id, metrics=metrics)

    def log_image(self, pixels: NDArray[np.uint8], name: str) -> None:
        """An image of the run's own gallery, uint8 HWC RGB; ``name`` ends in .png."""
        with service_errors(self.uri):
            self.client.log_image(self.run_id, pixels, artifact_file=name)

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that MLflow shows and compares over runs; ``name`` ends in .json."""
        with service_errors(self.uri):
            self.client.log_table(self.run_id, table, name)

    def log_text(self, text: str, name: str) -> None:
        """Text as an artifact; MLflow shows it by the suffix of ``name``."""
        with service_errors(self.uri):
            self.client.log_text(self.run_id, text, name)

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file or folder as artifact."""
        with service_errors(self.uri):
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), folder)
            else:
                self.client.log_artifact(self.run_id, str(path), folder)

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Tags; those without a value are left out."""
        from mlflow.entities import RunTag

        fresh = [RunTag(key, value) for key, value in tags.items() if value is not None]
        with service_errors(self.uri):
            self.client.log_batch(self.run_id, tags=fresh)

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the run."""
        with service_errors(self.uri):
            self.client.set_terminated(self.run_id, status)


def dataset_name(version: DataVersion) -> str:
    """The name of the data set in MLflow: its folder."""
    return Path(version.path).name or version.path


@contextmanager
def track(
    settings: Settings,
    *,
    purpose: Purpose,
    name: str,
    key: str | None = None,
    tags: Mapping[str, str | None] | None = None,
) -> Iterator[TrackedRun]:
    """A run for the time of a block: FINISHED at its end, FAILED or KILLED on the way out.

    Args:
        name: What people read in the list of runs.
        key: What makes two calls the same work, such as the name of a training run. A run with
            the same key in the experiment is gone on with instead of a second one beside it.
        tags: As MLflow tags; those without a value are left out.

    Raises:
        ServiceError: MLflow cannot be reached or refuses us.
    """
    run = open_run(settings, purpose=purpose, name=name, key=key, tags=tags)
    try:
        with _termination_as_exception():
            yield run
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        _finish_or_log(run, "KILLED")
        raise
    except BaseException:
        _finish_or_log(run, "FAILED")
        raise
    run.finish("FINISHED")


def open_run(
    settings: Settings,
    *,
    purpose: Purpose,
    name: str,
    key: str | None = None,
    tags: Mapping[str, str | None] | None = None,
) -> TrackedRun:
    """Create the run, or go on with the one of the same key. Prefer :func:`track`."""
    client, uri = connect(settings), settings.mlflow_uri
    # MLflow's filters have no way to write a quote inside a value
    key = key.replace("'", "_") if key else None
    ours = {KEY_TAG: key, HOST_TAG: socket.gethostname(), PID_TAG: str(os.getpid())}
    with service_errors(uri):
        experiment_id = _experiment(client, settings, purpose)
        end_orphans(client, experiment_id)
        known = _find(client, experiment_id, key) if key else None
        if known:
            client.update_run(known, status="RUNNING")
            run = TrackedRun(client, uri, known, experiment_id)
        else:
            created = client.create_run(
                experiment_id,
                run_name=name,
                tags={
                    "mlflow.user": getpass.getuser(),
                    "mlflow.source.name": "mirnet",
                    "mirnet.python": platform.python_version(),
                },
            )
            run = TrackedRun(client, uri, created.info.run_id, experiment_id)
    run.set_tags(ours | dict(tags or {}))
    return run


def end_orphans(client: MlflowClient, experiment_id: str) -> int:
    """Mark runs KILLED whose process on this host is gone; how many there were."""
    mine = client.search_runs(
        [experiment_id],
        f"attributes.status = 'RUNNING' and tags.`{HOST_TAG}` = '{socket.gethostname()}'",
    )
    host = socket.gethostname()
    gone = [run for run in mine if process_is_gone(host, run.data.tags.get(PID_TAG, ""))]
    for run in gone:
        log.warning("run %s was left by a process that is gone: KILLED", run.info.run_name)
        client.set_terminated(run.info.run_id, "KILLED")
    return len(gone)


def _experiment(client: MlflowClient, settings: Settings, purpose: Purpose) -> str:
    from mlflow.exceptions import MlflowException

    name = experiment_name(purpose)
    known = client.get_experiment_by_name(name)
    if known is None:
        try:
            root = artifact_root(settings)
            return str(client.create_experiment(name, f"{root}/{name}" if root else None))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            known = client.get_experiment_by_name(name)
    if known is None or known.lifecycle_stage == "deleted":
        raise MlflowException(
            f"experiment {name} is deleted; restore it: mlflow experiments restore"
        )
    return str(known.experiment_id)


def _find(client: MlflowClient, experiment_id: str, key: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _finish_or_log(run: TrackedRun, status: Literal["FAILED", "KILLED"]) -> None:
    """The error that ends the block counts, not that MLflow may be away at the same time."""
    try:
        run.finish(status)
    except ServiceError as error:
        log.warning("run %s is left RUNNING: %s", run.run_id, error)


@contextmanager
def _termination_as_exception() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the run is ended too."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, _frame: FrameType | None) -> None:
        raise SystemExit(128 + signum)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
