"""Events of a job on a cluster for its followers: numbered objects on the checkpoint store.

One object per event, ``000000.json`` and up, written by the job's driver only. A follower polls for
the next number; a restarted one begins at the first. ``kind`` names the type of an event; a reader
skips unknown kinds and fields, so versions may differ.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from threading import Lock

from pyarrow import fs
from pydantic import BaseModel, ConfigDict, Field

from mirnet.errors import StorageError, first_line
from mirnet.results import EpochMetrics, LogLine, NodeUsage, Result, SampleImage
from mirnet.signals import stop_if_asked
from mirnet.storage.arrow import read_text, storage_errors, write_text

logger = logging.getLogger(__name__)

PAUSE_S = 2.0


class JobEnd(Result):
    """The last event of a job; without it the driver was killed or lost the store."""

    num_workers: int | None = Field(default=None, description="of the training that succeeded")
    error: str | None = Field(default=None, description="why it failed, in one line")


JobEvent = EpochMetrics | NodeUsage | SampleImage | LogLine | JobEnd
_KINDS: dict[str, type[JobEvent]] = {
    "epoch": EpochMetrics,
    "usage": NodeUsage,
    "picture": SampleImage,
    "log": LogLine,
    "end": JobEnd,
}
_KIND_OF = {event: kind for kind, event in _KINDS.items()}


@dataclass
class JobEventWriter:
    """Writes the events, in the driver; ``folder`` must be empty."""

    filesystem: fs.FileSystem
    folder: str
    _number: int = 0
    _unsent: deque[JobEvent] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def write(self, event: JobEvent) -> None:
        """Write an event. After a failure it is queued and written before the next event.

        A failure is not raised: training that needs the store fails at its next checkpoint.
        """
        with self._lock:
            self._unsent.append(event)
            try:
                self._send()
            except StorageError as error:
                sys.stderr.write(f"{error}\n{len(self._unsent)} events wait\n")

    def flush(self, patience_s: float) -> None:
        """Write the queued events; retries for ``patience_s``.

        Raises:
            StorageError: some are not written; says how many.
            SystemExit: as :func:`mirnet.signals.stop_if_asked`.
        """
        deadline = time.monotonic() + patience_s
        while True:
            stop_if_asked()
            try:
                with self._lock:
                    return self._send()
            except StorageError as error:
                if time.monotonic() > deadline:
                    raise StorageError(
                        f"{len(self._unsent)} event(s) could not be written: {error}"
                    ) from error
            time.sleep(PAUSE_S)

    def _send(self) -> None:
        while self._unsent:
            path = _path(self.folder, self._number)
            with storage_errors(path):
                write_text(self.filesystem, path, _encode(self._unsent[0]))
            self._unsent.popleft()
            self._number += 1


@dataclass
class JobEventReader:
    """Reads the events, in a follower."""

    filesystem: fs.FileSystem
    folder: str
    _number: int = 0

    def next(self) -> JobEvent | None:
        """The next event; None if there is none yet.

        Raises:
            StorageError: the store refuses; the next call asks for the same event.
            SystemExit: as :func:`mirnet.signals.stop_if_asked`.
        """
        while True:
            stop_if_asked()
            path = _path(self.folder, self._number)
            with storage_errors(path):
                text = read_text(self.filesystem, path)
            if text is None:
                return None
            event = _decode(text, path)
            self._number += 1
            if event is not None:
                return event


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"


def _encode(event: JobEvent) -> str:
    # not model_dump_json, which writes values that are not finite as null
    return json.dumps({"kind": _KIND_OF[type(event)], **event.model_dump(mode="json")})


class _Head(BaseModel):
    model_config = ConfigDict(extra="allow")

    kind: str


def _decode(text: str, path: str) -> JobEvent | None:
    """An event, or None with a log line where this version cannot read it."""
    try:
        head = _Head.model_validate_json(text)
        if head.kind not in _KINDS:
            logger.debug("%s: an event of unknown kind %s", path, head.kind)
            return None
        kind = _KINDS[head.kind]
        extra = (head.model_extra or {}).keys() - kind.model_fields.keys()
        if extra:
            logger.debug("%s: unknown fields %s", path, ", ".join(sorted(extra)))
        return kind.model_validate_json(text, extra="ignore")
    except ValueError as error:
        logger.warning("%s is no event that this version can read: %s", path, first_line(error))
        return None
