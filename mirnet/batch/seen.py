"""What was seen of the images before an image, in memory: its brightness depends on it with
``enhance.even``.

A pure function of the bytes of each and of the configuration of the run. It is kept of what this
process has enhanced, and found again from the input otherwise: after a kill, for what was done the
night before, or by another worker.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

from mirnet.batch.image_work import Problem
from mirnet.batch.ledger import InputVersion
from mirnet.batch.manifest import OUTAGE
from mirnet.batch.waiting import waited
from mirnet.images import Seen
from mirnet.signals import advance
from mirnet.storage.store import (
    KeyRefused,
    ObjectChanged,
    ObjectMissing,
    ObjectRefused,
    Store,
    TransientStorageError,
)

# 10 KiB each
_MOST = 1024

Look = Callable[[InputVersion, bytes], Seen | Problem | None]
"""As :meth:`mirnet.batch.image_work.ImageWork.view`."""


class SeenImages:
    """Of one process; the latest thousand."""

    def __init__(self) -> None:
        self._kept: OrderedDict[InputVersion, Seen | None] = OrderedDict()
        self._lock = Lock()  # bright images are kept by threads

    def keep(self, each: InputVersion, seen: Seen | None) -> None:
        with self._lock:
            self._kept[each] = seen
            self._kept.move_to_end(each)
            if len(self._kept) > _MOST:
                self._kept.popitem(last=False)

    def of(self, inputs: Iterable[InputVersion], source: Store, look: Look) -> list[Seen] | Problem:
        """Of all that can be enhanced, in their order; a problem where that is known later.

        Raises:
            StorageError: failures that stop a run.
        """
        found: list[Seen] = []
        seen: Seen | Problem | None
        for each in inputs:
            with self._lock:
                known, seen = each in self._kept, self._kept.get(each)
            if not known:
                seen = self._find(each, source, look)
            if isinstance(seen, Problem):
                return seen
            if seen is not None:
                found.append(seen)
        return found

    def _find(self, each: InputVersion, source: Store, look: Look) -> Seen | Problem | None:
        try:
            data = _read(each, source)
        except TransientStorageError as error:
            return Problem("failed", f"{OUTAGE}: {error}")
        seen = None if data is None else look(each, data)
        advance()
        if not isinstance(seen, Problem):
            self.keep(each, seen)
        return seen


def _read(each: InputVersion, source: Store) -> bytes | None:
    """The bytes of this version; none if they are gone or not to be had."""
    key, version = each
    with ThreadPoolExecutor(1, thread_name_prefix="mirnet-io") as pool:
        try:
            blob = waited(pool.submit(source.get, key))
        except (KeyRefused, ObjectChanged, ObjectMissing, ObjectRefused):
            return None
    return blob.data if blob.version == version else None
