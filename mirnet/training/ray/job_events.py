"""How a job on a cluster speaks to whoever follows it: numbered objects on the checkpoint store.

One object per event, ``000000.json`` and up, written by the job's driver alone. A follower asks for
the next number; one that is started again begins at the first.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from dataclasses import dataclass, field
from threading import Lock

from pyarrow import fs
from pydantic import Field, TypeAdapter, ValidationError

from mirnet.errors import StorageError
from mirnet.results import EpochMetrics, LogLine, NodeUsage, Result, SamplePicture
from mirnet.storage.arrow import read_text, storage_errors, write_text

logger = logging.getLogger(__name__)


class JobEnd(Result):
    """The last event of a job; without it the driver was killed."""

    num_workers: int | None = Field(default=None, description="of the training that succeeded")
    error: str | None = Field(default=None, description="why it failed, in one line")


JobEvent = EpochMetrics | NodeUsage | SamplePicture | LogLine | JobEnd
_EVENT: TypeAdapter[JobEvent] = TypeAdapter(JobEvent)


@dataclass
class JobEventWriter:
    """The driver's end; ``folder`` is empty at first."""

    filesystem: fs.FileSystem
    folder: str
    _number: int = 0
    _unsent: deque[JobEvent] = field(default_factory=deque)
    _lock: Lock = field(default_factory=Lock)

    def write(self, event: JobEvent) -> None:
        """What the store refuses is kept and written before the next event.

        Raises nothing for that: the checkpoints tell whether training can go on without the store.
        """
        with self._lock:
            self._unsent.append(event)
            try:
                while self._unsent:
                    path = _path(self.folder, self._number)
                    with storage_errors(path):
                        write_text(self.filesystem, path, self._unsent[0].model_dump_json())
                    self._unsent.popleft()
                    self._number += 1
            except StorageError as error:
                sys.stderr.write(f"{error}\n{len(self._unsent)} events wait\n")


@dataclass
class JobEventReader:
    """A follower's end."""

    filesystem: fs.FileSystem
    folder: str
    _number: int = 0

    def fresh(self) -> list[JobEvent]:
        """The events since the last call.

        Raises:
            StorageError: the store refuses; nothing of them is lost for the next call.
        """
        events: list[JobEvent] = []
        number = self._number
        while (text := self._read(number)) is not None:
            try:
                events.append(_EVENT.validate_json(text))
            except ValidationError:
                logger.warning("%s is no event that this version knows", _path(self.folder, number))
            number += 1
        self._number = number
        return events

    def _read(self, number: int) -> str | None:
        path = _path(self.folder, number)
        with storage_errors(path):
            return read_text(self.filesystem, path)


def _path(folder: str, number: int) -> str:
    return f"{folder}/{number:06d}.json"
