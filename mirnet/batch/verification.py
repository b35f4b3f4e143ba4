"""Compares the outputs of a target with what the manifests say was written.

Memory does not grow with the outputs: what is recorded is a temporary SQLite table, and files are
read up to ``_MAX_BYTES`` at a time.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

from mirnet.batch.ledger import Ledger, PastRuns, is_ledger_key
from mirnet.batch.provenance import single_records
from mirnet.config import Settings
from mirnet.results import OutputProblem, VerifyResult
from mirnet.signals import advance, advancing
from mirnet.storage.places import is_s3, local_path, open_store
from mirnet.storage.store import (
    KeyRefused,
    NoSuchPlace,
    ObjectInfo,
    ObjectMissing,
    ObjectRefused,
    Store,
    TransientStorageError,
)

Progress = Callable[[int, int], None]
_MAX_LISTED = 1000
# read at the same time; a larger output is read alone
_MAX_BYTES = 256 * 2**20
_TABLE = """
CREATE TABLE recorded(output TEXT PRIMARY KEY, input TEXT, size INTEGER, version TEXT, digest TEXT,
                      seen INTEGER DEFAULT 0) WITHOUT ROWID
"""


def verify_outputs(
    target: str, settings: Settings, *, quick: bool = False, progress: Progress | None = None
) -> VerifyResult:
    """Find outputs that were replaced, truncated or deleted since a run wrote them.

    A run at work on the target makes its outputs differ from the manifests until it ends.

    Args:
        target: a folder, s3://bucket/prefix or single file that ``mirnet enhance`` wrote.
        quick: compare versions and sizes of the listing; read no output.
        progress: called with outputs checked and outputs recorded.

    Raises:
        NoSuchPlace: it does not exist, or no run has written to it.
        StorageError: it cannot be listed, or a manifest is not readable.
    """
    begun = time.monotonic()
    store, past, is_single = _open(target, settings)
    outputs = _Outputs(store, quick=quick)
    outputs.record(past)
    listing = outputs.heads() if is_single else store.list()
    outputs.compare(listing, num_threads=settings.io_threads, progress=progress)
    counts = outputs.counts
    return VerifyResult(
        target=target,
        outputs=outputs.total,
        intact=counts["intact"],
        not_checkable=counts["not_checkable"],
        deleted=counts["deleted"],
        truncated=counts["truncated"],
        replaced=counts["replaced"],
        unreadable=counts["unreadable"],
        quick=quick,
        problems=tuple(outputs.problems),
        bytes_read=outputs.bytes_read,
        seconds=time.monotonic() - begun,
    )


def has_digest(store: Store, key: str, digest: str) -> bool:
    """Whether the object has this SHA-256; False if it cannot be read."""
    try:
        return _digest(store, key) == digest
    except (KeyRefused, ObjectMissing, ObjectRefused):
        return False


def _open(target: str, settings: Settings) -> tuple[Store, PastRuns, bool]:
    """The store of the outputs, the runs that wrote to it, and whether it is a single file."""
    if is_s3(target) or local_path(target).is_dir():
        store = open_store(target, settings)
        store.check()
        past = Ledger.of_target(store).past_runs()
        if past.names:
            return store, past, False
    own = single_records(target, settings)
    past = Ledger(open_store(own, settings)).past_runs()
    if not past.names:
        raise NoSuchPlace(f"{target}: `mirnet enhance` has left no records there", transient=False)
    folder = target.rpartition("/")[0] if is_s3(target) else str(local_path(target).parent)
    return open_store(folder, settings, bookkeeping=own), past, True


@dataclass(frozen=True, slots=True)
class _Recorded:
    """An output by its last row. ``size``, ``version``, ``digest``: none in older manifests."""

    output: str
    input: str
    size: int | None
    version: str | None
    digest: str | None


class _Outputs:
    def __init__(self, store: Store, *, quick: bool) -> None:
        self._store, self._quick = store, quick
        self._db = sqlite3.connect("")  # a file without a name, gone with the process
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLE)
        self.counts: Counter[str] = Counter()
        self.problems: list[OutputProblem] = []
        self.bytes_read = self.total = 0

    def record(self, past: PastRuns) -> None:
        """The last row of each output."""
        self._db.executemany(
            "INSERT OR REPLACE INTO recorded(output, input, size, version, digest)"
            " VALUES (?, ?, ?, ?, ?)",
            (
                (
                    *(row.output_key, row.input_key),
                    *(row.output_size, row.output_version, row.output_digest),
                )
                for row in advancing(past.done_records(outputs=True))
                if row.output_key is not None and row.status in ("enhanced", "passed_through")
            ),
        )
        (self.total,) = self._db.execute("SELECT COUNT(*) FROM recorded").fetchone()

    def heads(self) -> Iterator[ObjectInfo]:
        """In place of a listing, of a single output in a folder of other files."""
        for (key,) in self._db.execute("SELECT output FROM recorded").fetchall():
            with suppress(KeyRefused):  # no key of ours: it counts as deleted
                head = self._store.head(key)
                if head is None:
                    continue
                yield ObjectInfo(key, head.size, head.version, 0.0)

    def compare(
        self, listing: Iterable[ObjectInfo], *, num_threads: int, progress: Progress | None
    ) -> None:
        """All that is listed, then what is missing."""
        told = progress or (lambda _done, _total: None)
        pool = ThreadPoolExecutor(num_threads, thread_name_prefix="mirnet-verify")
        reading: deque[tuple[Future[str], _Recorded, int]] = deque()
        try:
            for info in advancing(listing):
                row = None if is_ledger_key(info.key) else self._take(info.key)
                if row is None or not self._needs_reading(info, row):
                    continue
                while reading and (
                    len(reading) >= 2 * num_threads
                    or sum(size for *_, size in reading) + info.size > _MAX_BYTES
                ):
                    self._judge(*reading.popleft())
                reading.append((pool.submit(_digest, self._store, info.key), row, info.size))
                told(self.counts.total(), self.total)
            while reading:
                self._judge(*reading.popleft())
                told(self.counts.total(), self.total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        for output, source in self._db.execute(
            "SELECT output, input FROM recorded WHERE NOT seen ORDER BY output"
        ):
            self._found("deleted", _Recorded(output, source, None, None, None))
        told(self.counts.total(), self.total)

    def _take(self, key: str) -> _Recorded | None:
        found = self._db.execute(
            "SELECT output, input, size, version, digest FROM recorded WHERE output = ?", (key,)
        ).fetchone()
        if found is None:
            return None
        self._db.execute("UPDATE recorded SET seen = 1 WHERE output = ?", (key,))
        return _Recorded(*found)

    def _needs_reading(self, info: ObjectInfo, row: _Recorded) -> bool:
        """Judge by the listing; whether that is not enough."""
        if info.problem is not None:
            self._found("replaced", row, f"by a {info.problem}")
        elif row.version is None and row.digest is None:
            self._found("not_checkable", row)
        elif row.size is not None and info.size != row.size:
            problem = "truncated" if info.size < row.size else "replaced"
            self._found(problem, row, f"{info.size} bytes instead of {row.size}")
        elif row.digest is not None and not self._quick:
            return True
        elif row.version is None:
            self._found("not_checkable", row)
        elif info.version == row.version:
            self._found("intact", row)
        else:
            self._found("replaced", row, "another version; its bytes were not compared")
        return False

    def _judge(self, reading: Future[str], row: _Recorded, size: int) -> None:
        try:
            digest = reading.result()
        except ObjectMissing:
            self._found("deleted", row)
        except (KeyRefused, ObjectRefused, TransientStorageError) as error:
            self._found("unreadable", row, str(error))
        else:
            self.bytes_read += size
            intact = digest == row.digest
            self._found("intact" if intact else "replaced", row, None if intact else "other bytes")
        advance()

    def _found(self, what: str, row: _Recorded, detail: str | None = None) -> None:
        self.counts[what] += 1
        if what in ("intact", "not_checkable") or len(self.problems) >= _MAX_LISTED:
            return
        problem = {"output": row.output, "input": row.input, "problem": what, "detail": detail}
        self.problems.append(OutputProblem.model_validate(problem))


def _digest(store: Store, key: str) -> str:
    return hashlib.sha256(store.get(key).data).hexdigest()
