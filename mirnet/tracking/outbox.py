"""Records of a run in order: sent immediately, or queued in a file while MLflow is unreachable.

Sending an entry is idempotent, so an interrupted delivery starts again from the beginning of the
file.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from mirnet.errors import DataError, ServiceError
from mirnet.full_disk import full_disk_explained
from mirnet.results import DataVersion
from mirnet.tracking.client import connect_uri, service_errors
from mirnet.tracking.notes import IMAGES_SECTION, NOTE_TAG, with_preview, with_section

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

_BATCH_OF_PARAMS = 100


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    run_id: str


class Metrics(_Entry):
    """Values of one step, linked to their data and model."""

    kind: Literal["metrics"] = "metrics"
    values: dict[str, float]
    step: int = 0
    timestamp_ms: int = Field(default_factory=lambda: int(time.time() * 1000))
    data: DataVersion | None = None
    model_id: str | None = None

    def send(self, client: MlflowClient) -> None:
        from mlflow.entities import Metric

        name, digest = (dataset_name(self.data), self.data.digest) if self.data else (None, None)
        metrics = [
            Metric(
                key, value, self.timestamp_ms, self.step, self.model_id, name, digest, self.run_id
            )
            for key, value in self.values.items()
        ]
        client.log_batch(self.run_id, metrics=metrics)


class Parameters(_Entry):
    """Parameters; those that the run already has are unchanged."""

    kind: Literal["params"] = "params"
    values: dict[str, str]

    def send(self, client: MlflowClient) -> None:
        from mlflow.entities import Param

        existing = client.get_run(self.run_id).data.params
        fresh = [Param(key, value) for key, value in self.values.items() if key not in existing]
        for start in range(0, len(fresh), _BATCH_OF_PARAMS):
            client.log_batch(self.run_id, params=fresh[start : start + _BATCH_OF_PARAMS])


class Tags(_Entry):
    kind: Literal["tags"] = "tags"
    values: dict[str, str]

    def send(self, client: MlflowClient) -> None:
        from mlflow.entities import RunTag

        client.log_batch(self.run_id, tags=[RunTag(k, v) for k, v in self.values.items()])


class Note(_Entry):
    """A section of the run's description; the rest of it stays.

    The section ``Images`` without a text is the preview at the top.
    """

    kind: Literal["note"] = "note"
    title: str
    text: str

    def send(self, client: MlflowClient) -> None:
        run = client.get_run(self.run_id)
        current = run.data.tags.get(NOTE_TAG, "")
        if self.title == IMAGES_SECTION and not self.text:
            note = with_preview(current, run.info.experiment_id, self.run_id)
        else:
            note = with_section(current, self.title, self.text)
        client.set_tag(self.run_id, NOTE_TAG, note)


class Data(_Entry):
    """A data version as input; MLflow shows DVC's digest as the data set's own."""

    kind: Literal["data"] = "data"
    version: DataVersion
    context: str
    split: str | None = None

    def send(self, client: MlflowClient) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        version = self.version
        dataset = Dataset(
            name=dataset_name(version),
            digest=version.digest,
            source_type="dvc",
            source=version.model_dump_json(include={"path", "git_commit"}),
            profile=version.model_dump_json(include={"num_files", "size"}),
        )
        tags = [InputTag("mlflow.data.context", self.context)]
        tags += [InputTag("mirnet.split", self.split)] if self.split else []
        client.log_inputs(self.run_id, [DatasetInput(dataset, tags)])


class UsedModel(_Entry):
    """A LoggedModel as input: the model that a run scores."""

    kind: Literal["model"] = "model"
    model_id: str

    def send(self, client: MlflowClient) -> None:
        from mlflow.entities import LoggedModelInput

        inputs = client.get_run(self.run_id).inputs
        existing = {model.model_id for model in inputs.model_inputs} if inputs else set()
        if self.model_id not in existing:  # MLflow would store every call
            client.log_inputs(self.run_id, models=[LoggedModelInput(self.model_id)])


class Text(_Entry):
    kind: Literal["text"] = "text"
    text: str
    name: str

    def send(self, client: MlflowClient) -> None:
        client.log_text(self.run_id, self.text, self.name)


class Table(_Entry):
    kind: Literal["table"] = "table"
    columns: dict[str, list[Any]]
    name: str

    def send(self, client: MlflowClient) -> None:
        import pandas as pd

        if any(a.path == self.name for a in client.list_artifacts(self.run_id)):
            # log_table would append to an existing one
            text = pd.DataFrame(self.columns).to_json(orient="split", index=False)
            client.log_text(self.run_id, text, self.name)
            return
        client.log_table(self.run_id, self.columns, self.name)


class File(_Entry):
    """A file or folder as artifact, or an image of MLflow's image grid if it has a key."""

    kind: Literal["file"] = "file"
    path: Path
    folder: str | None = None
    image_key: str | None = None
    step: int = 0

    def send(self, client: MlflowClient) -> None:
        if self.image_key is not None:
            from mlflow import Image

            image = Image(str(self.path))
            client.log_image(self.run_id, image, key=self.image_key, step=self.step)
        elif self.path.is_dir():
            client.log_artifacts(self.run_id, str(self.path), self.folder)
        else:
            client.log_artifact(self.run_id, str(self.path), self.folder)


class Finish(_Entry):
    kind: Literal["finish"] = "finish"
    status: Literal["FINISHED", "FAILED", "KILLED"]

    def send(self, client: MlflowClient) -> None:
        client.set_terminated(self.run_id, self.status)


Entry = Metrics | Parameters | Tags | Note | Data | UsedModel | Text | Table | File | Finish
_LINE: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


@dataclass
class Outbox:
    """Sends a run's entries to MLflow. Picklable; connects where it is used."""

    tracking_uri: str
    path: Path
    _warned: bool = field(default=False, repr=False)

    def write(self, entry: Entry) -> None:
        """Send queued entries and then this one, or queue it if MLflow is unreachable.

        Raises:
            ServiceError: MLflow refuses the entry.
            DiskFull: it is unreachable, and there is no space to queue the entry.
        """
        try:
            if self.path.exists():
                deliver(self.tracking_uri, self.path)
            _send(self.tracking_uri, [entry])
        except ServiceError as error:
            if not error.transient:
                raise
            with full_disk_explained():
                self._keep(entry)
            if not self._warned:
                how = f"mirnet runs deliver {self.path}"
                log.warning("%s. Records of the run are queued; send them later: %s", error, how)
            self._warned = True
        else:
            self._warned = False

    def _keep(self, entry: Entry) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(entry, File):
            copy = self.path.with_suffix("") / uuid.uuid4().hex / entry.path.name
            copy.parent.mkdir(parents=True)
            if entry.path.is_dir():
                shutil.copytree(entry.path, copy)
            else:
                shutil.copy(entry.path, copy)
            entry = entry.model_copy(update={"path": copy.resolve()})
        _append(self.path, f"{entry.model_dump_json()}\n".encode())


def _append(path: Path, line: bytes) -> None:
    """Add a whole line, in place of half a line that a killed process left."""
    with path.open("a+b", buffering=0) as file:  # closing a buffer would write it again
        whole = _end_of_lines(file)
        file.truncate(whole)
        try:
            rest = memoryview(line)
            while rest:
                rest = rest[file.write(rest) :]
        except OSError as error:  # the disk is full
            file.truncate(whole)
            raise OSError(error.errno, error.strerror, str(path)) from error


def deliver(tracking_uri: str, path: Path) -> int:
    """Send the entries of the file and remove it; returns their number.

    Raises:
        DataError: the file is missing or a line is invalid.
        ServiceError: MLflow is still unreachable; the file stays.
    """
    entries = _read(path)
    _send(tracking_uri, entries)
    path.unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return len(entries)


def deliver_all(tracking_uri: str, folder: Path) -> None:
    """Send the queued entries of other runs; those that cannot be sent stay, with a warning."""
    for path in sorted(folder.glob("*.jsonl")):
        try:
            count = deliver(tracking_uri, path)
        except (DataError, ServiceError) as error:
            log.warning("%s still waits: %s", path, error)
        else:
            log.info("%s: %d entries delivered", path, count)


def dataset_name(version: DataVersion) -> str:
    """The name of the data set in MLflow: its folder."""
    return Path(version.path).name or version.path


def _send(tracking_uri: str, entries: list[Entry]) -> None:
    client = connect_uri(tracking_uri)
    with service_errors(tracking_uri):
        for entry in entries:
            entry.send(client)


def _read(path: Path) -> list[Entry]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise DataError(f"{path} is missing: nothing waits for delivery") from None
    # a process killed while writing leaves half a line, only at the end
    whole = text[: text.rfind("\n") + 1].splitlines()
    entries = []
    for number, line in enumerate(whole, 1):
        try:
            entries.append(_LINE.validate_json(line))
        except ValidationError as error:
            raise DataError(f"{path}:{number} is no entry of a run") from error
    return entries


def _end_of_lines(file: IO[bytes]) -> int:
    """Where the last whole line ends; only after a kill is there more to read than one byte."""
    size = file.seek(0, os.SEEK_END)
    if not size:
        return 0
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return size
    file.seek(0)
    return file.read().rfind(b"\n") + 1
