"""MLflow runs: one experiment per purpose, readable names, resumable by key, always ended."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mirnet.config import Settings
from mirnet.errors import MirnetError
from mirnet.liveness import ProcessIdentity, has_ended, this_process
from mirnet.logs import bound
from mirnet.params import Params
from mirnet.redaction import without_user
from mirnet.results import DataVersion
from mirnet.signals import termination_as_exception
from mirnet.tracking.client import (
    artifact_root,
    connect,
    ignored,
    service_errors,
)
from mirnet.tracking.environment import environment_tags
from mirnet.tracking.notes import IMAGES_SECTION, PREVIEW, prepare_experiment, shrunk
from mirnet.tracking.outbox import (
    Data,
    File,
    Finish,
    Metrics,
    Note,
    Outbox,
    Parameters,
    Table,
    Tags,
    Text,
    UsedModel,
    deliver_all,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

Purpose = Literal["validate", "train", "evaluate", "enhance", "search"]
KEY_TAG, HOST_TAG, PID_TAG = "mirnet.key", "mirnet.host", "mirnet.pid"
PROCESS_TAG = "mirnet.process"
PENDING = "pending"
SILENT_AFTER_S = 24 * 3600.0
LEAVE_S = 2.0
"""From SIGTERM; longer than for a lease, since no other job waits for a tracked run."""
LONGEST_VALUE = 6000
"""Characters of a parameter that MLflow stores."""


def experiment_name(purpose: Purpose) -> str:
    """One experiment per purpose, such as ``mirnet-train``."""
    return f"mirnet-{purpose}"


@dataclass(frozen=True)
class TrackedRun:
    """One MLflow run and the methods to write to it.

    A write never fails because MLflow is away: it waits in the run's outbox under the workspace
    and is sent with the next write, with the next run on this machine, or by
    ``mirnet runs deliver``.
    """

    outbox: Outbox
    run_id: str
    experiment_id: str

    @property
    def page(self) -> str:
        """Address of the run's page on an MLflow server; without a server, a description."""
        place = without_user(self.outbox.tracking_uri).rstrip("/")
        if place.startswith(("http://", "https://")):
            return f"{place}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return f"MLflow run {self.run_id} in {place}"

    def artifact_page(self, name: str) -> str | None:
        """The web address of an artifact; none without an MLflow server."""
        return f"{self.page}/artifacts/{name}" if self.page.startswith("http") else None

    def log_params(self, params: Params) -> None:
        """All parameters, flat, as ``section.key``; a resumed run already has them."""
        values = {key: str(value)[:LONGEST_VALUE] for key, value in params.flat().items()}
        self.outbox.write(Parameters(run_id=self.run_id, values=values))

    def log_data(self, version: DataVersion, *, context: str, split: str | None = None) -> None:
        """Link the run to a data version; MLflow shows DVC's digest as that of the data set.

        Args:
            context: Use of the data: training, evaluation, ...
        """
        self.outbox.write(Data(run_id=self.run_id, version=version, context=context, split=split))

    def log_used_model(self, model_id: str) -> None:
        self.outbox.write(UsedModel(run_id=self.run_id, model_id=model_id))

    def log_metrics(
        self,
        values: Mapping[str, float],
        *,
        step: int = 0,
        data: DataVersion | None = None,
        model_id: str | None = None,
    ) -> None:
        """Metrics named ``phase/name``, linked to their data and model."""
        entry = Metrics(
            run_id=self.run_id, values=dict(values), step=step, data=data, model_id=model_id
        )
        self.outbox.write(entry)

    def log_image(self, pixels: NDArray[np.uint8], key: str) -> None:
        """An image of MLflow's image grid, uint8 HWC RGB; runs are compared by its key."""
        from PIL import Image

        with tempfile.TemporaryDirectory(prefix="mirnet-image-") as folder:
            path = Path(folder) / "image.png"
            Image.fromarray(pixels).save(path)
            self.outbox.write(File(run_id=self.run_id, path=path, image_key=key))

    def log_preview(self, pixels: NDArray[np.uint8]) -> None:
        """The image at the top of the run's page, uint8 HWC RGB; replaces an earlier one."""
        from PIL import Image

        with tempfile.TemporaryDirectory(prefix="mirnet-image-") as folder:
            path = Path(folder) / PREVIEW
            Image.fromarray(pixels).save(path, quality=90)
            self.log_file(path)
            self.log_file(shrunk(path))
        self.log_note(IMAGES_SECTION, "")

    def log_note(self, title: str, text: str) -> None:
        """A section of the run's description, Markdown; replaces an earlier one of this title."""
        self.outbox.write(Note(run_id=self.run_id, title=title, text=text))

    def log_table(self, table: pd.DataFrame, name: str) -> None:
        """A table that MLflow shows and compares across runs; ``name`` ends in .json."""
        columns: dict[str, list[Any]] = {str(k): v.tolist() for k, v in table.items()}
        self.outbox.write(Table(run_id=self.run_id, columns=columns, name=name))

    def log_text(self, text: str, name: str) -> None:
        self.outbox.write(Text(run_id=self.run_id, text=text, name=name))

    def log_file(self, path: Path, folder: str | None = None) -> None:
        """A file or folder as artifact."""
        self.outbox.write(File(run_id=self.run_id, path=path, folder=folder))

    def set_tags(self, tags: Mapping[str, str | None]) -> None:
        """Tags; those without a value are left out."""
        values = {key: value for key, value in tags.items() if value is not None}
        self.outbox.write(Tags(run_id=self.run_id, values=values))

    def finish(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        self.outbox.write(Finish(run_id=self.run_id, status=status))


def attach(run_id: str, settings: Settings) -> TrackedRun:
    """Write to an existing run, without a change of its status.

    Raises:
        ServiceError: MLflow cannot be reached, or has no such run.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        experiment_id = client.get_run(run_id).info.experiment_id
    return TrackedRun(_outbox(run_id, settings), run_id, experiment_id)


@contextmanager
def track(
    settings: Settings,
    *,
    purpose: Purpose,
    name: str,
    key: str | None = None,
    tags: Mapping[str, str | None] | None = None,
) -> Iterator[TrackedRun]:
    """A run during a block: FINISHED at its end, FAILED or KILLED on an error or signal.

    Args:
        name: Display name in the list of runs.
        key: Identity of the work, such as the name of a training run. A run with
            the same key in the experiment is resumed instead of creating a second one.
        tags: As MLflow tags; those without a value are left out.

    Raises:
        ServiceError: MLflow cannot be reached or refuses access.
    """
    run = _start(settings, purpose, name, key, tags or {})
    try:
        with (
            termination_as_exception(stop_s=settings.stop_s, raise_after_s=LEAVE_S),
            bound(mlflow_run_id=run.run_id),
        ):
            yield run
    except Exception:
        _finish_or_log(run, "FAILED")
        raise
    except BaseException:  # Ctrl-C, exit, or Prefect's signal of a cancelled flow run
        _finish_or_log(run, "KILLED")
        raise
    run.finish("FINISHED")


def _start(
    settings: Settings,
    purpose: Purpose,
    name: str,
    key: str | None,
    tags: Mapping[str, str | None],
) -> TrackedRun:
    """Create the run, or resume the one of the same key."""
    client, uri = connect(settings), settings.mlflow_uri
    deliver_all(uri, settings.workspace / PENDING)
    # MLflow's filters cannot escape a quote inside a value
    key = key.replace("'", "_") if key else None
    own = {
        KEY_TAG: key,
        HOST_TAG: socket.gethostname(),
        PID_TAG: str(os.getpid()),
        PROCESS_TAG: str(this_process()),
    }
    given = own | environment_tags() | dict(tags)
    run_tags = {tag: value for tag, value in given.items() if value is not None}
    with service_errors(uri):
        experiment_id = _experiment(client, settings, purpose)
        end_orphans(client, experiment_id)
        run_id = _find(client, experiment_id, key) if key else None
        if run_id is None:
            run_tags |= {"mlflow.user": getpass.getuser(), "mlflow.source.name": "mirnet"}
            created = client.create_run(experiment_id, run_name=name, tags=run_tags)
            run_id = str(created.info.run_id)
        else:
            Tags(run_id=run_id, values=run_tags).send(client)
            client.update_run(run_id, status="RUNNING")
    return TrackedRun(_outbox(run_id, settings), run_id, experiment_id)


def _outbox(run_id: str, settings: Settings) -> Outbox:
    path = (settings.workspace / PENDING / f"{run_id}.jsonl").resolve()
    return Outbox(settings.mlflow_uri, path)


def end_orphans(client: MlflowClient, experiment_id: str) -> int:
    """Mark runs as KILLED whose process on this machine has ended; returns their number.

    Processes of other machines and containers cannot be checked: their runs count as orphaned after
    a day without updates. A run that is still alive sets its final status later.
    """
    running = client.search_runs([experiment_id], "attributes.status = 'RUNNING'")
    orphans = 0
    for run in running:
        process = ProcessIdentity.parse(run.data.tags.get(PROCESS_TAG, ""))
        visible = process is not None and process.is_visible
        gone = has_ended(process) if process and visible else _is_silent(client, run)
        if gone:
            log.warning("run %s was left by a process that is gone: KILLED", run.info.run_name)
            client.set_terminated(run.info.run_id, "KILLED")
            orphans += 1
    return orphans


def _is_silent(client: MlflowClient, run: Run) -> bool:
    """Whether the run began more than a day ago and has had no metric for a day."""
    since_ms = (time.time() - SILENT_AFTER_S) * 1000
    if run.info.start_time > since_ms:
        return False
    for key in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, key)
        if max(metric.timestamp for metric in history) > since_ms:
            return False
    return True


def _experiment(client: MlflowClient, settings: Settings, purpose: Purpose) -> str:
    from mlflow.exceptions import MlflowException

    name = experiment_name(purpose)
    existing = client.get_experiment_by_name(name)
    if existing is None:
        root = artifact_root(settings)
        location = f"{root}/{name}" if root else None
        # the pages of training runs, not those of language model applications
        tags = {"mlflow.experimentKind": "custom_model_development"}
        with ignored("RESOURCE_ALREADY_EXISTS"):
            client.create_experiment(name, location, tags=tags)
        existing = client.get_experiment_by_name(name)
    if existing is None or existing.lifecycle_stage == "deleted":
        raise MlflowException(
            f"experiment {name} is deleted; restore it: mlflow experiments restore"
        )
    prepare_experiment(client, existing)
    return str(existing.experiment_id)


def _find(client: MlflowClient, experiment_id: str, key: str) -> str | None:
    found = client.search_runs([experiment_id], f"tags.`{KEY_TAG}` = '{key}'", max_results=1)
    return str(found[0].info.run_id) if found else None


def _finish_or_log(run: TrackedRun, status: Literal["FAILED", "KILLED"]) -> None:
    """The error that ended the block is raised, not a failure of MLflow at the same time."""
    try:
        run.finish(status)
    except MirnetError as error:
        log.warning("run %s is left RUNNING: %s", run.run_id, error)
