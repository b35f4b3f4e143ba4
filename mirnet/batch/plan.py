"""Plan: what is there, what is done, what is to do. Memory does not grow with the keys: the
index is a temporary SQLite file, and no order of listings is assumed.
"""

from __future__ import annotations

import fnmatch
import itertools
import sqlite3
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from mirnet.batch.records import RECORDS, Digests, Mark, ModelIdentity
from mirnet.batch.storage import ObjectInfo
from mirnet.params import EnhanceParams

_PAGE = 1000
_TABLES = """
CREATE TABLE done(key TEXT PRIMARY KEY, version TEXT, same_model INTEGER, settings TEXT,
                  status TEXT, output TEXT) WITHOUT ROWID;
CREATE TABLE outputs(key TEXT PRIMARY KEY, version TEXT) WITHOUT ROWID;
CREATE TABLE todo(number INTEGER PRIMARY KEY, key TEXT, version TEXT, size INTEGER,
                  modified REAL, problem TEXT, output TEXT, existing TEXT);
"""
_LOOK_UP = """
SELECT done.*, outputs.key IS NOT NULL AS there
FROM done LEFT JOIN outputs ON outputs.key = done.output WHERE done.key = ?
"""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One input to enhance. ``existing``: version of what lies at the output key already."""

    info: ObjectInfo
    output_key: str
    existing: str | None = None


@dataclass
class PlanCounts:
    """What the listing held. ``ignored``: by suffix, glob or age.

    ``quarantined_before``: among the skipped.
    """

    planned: int = 0
    skipped: int = 0
    ignored: int = 0
    quarantined_before: int = 0


@dataclass(frozen=True)
class Planner:
    """The decisions of a plan: pure, one object at a time."""

    model: ModelIdentity
    params: EnhanceParams
    digests: Digests
    own_prefix: str | None = None
    single_output: str | None = None

    def wants(self, info: ObjectInfo) -> bool:
        """Whether the filters let this object in."""
        key, params = info.key, self.params
        if params.suffixes and not key.lower().endswith(params.suffixes):
            return False
        if params.include and not any(fnmatch.fnmatchcase(key, glob) for glob in params.include):
            return False
        if any(fnmatch.fnmatchcase(key, glob) for glob in params.exclude):
            return False
        if info.size < params.min_bytes:
            return False
        return not params.min_age_s or time.time() - info.modified >= params.min_age_s

    def is_own(self, key: str) -> bool:
        """Folder markers, records of runs, and a target that lies inside the source."""
        if key.endswith("/") or key.startswith(f"{RECORDS}/"):
            return True
        return self.own_prefix is not None and key.startswith(self.own_prefix)

    def output_key(self, key: str) -> str:
        """Where the output of an input goes, below the target."""
        if self.single_output:
            return self.single_output
        return f"{self.model.label}/{key}" if self.params.layout == "versioned" else key

    def is_done(self, info: ObjectInfo, row: sqlite3.Row | None, *, output_exists: bool) -> bool:
        """Done for this input version, these settings and (if so configured) this model."""
        if row is None or row["version"] != info.version:
            return False
        if row["status"] == "quarantined":
            return bool(row["settings"] == self.digests.quarantine)
        if row["status"] == "failed" or not output_exists:
            return False
        if row["settings"] != self.digests.output:
            return False
        return self.params.on_new_model == "keep" or bool(row["same_model"])


class Plan:
    """A plan on disk, removed when closed."""

    def __init__(self) -> None:
        # an empty name: a file in the temporary folder that has no name there, so that nothing
        # of it is left after a kill
        self._db = sqlite3.connect("")
        self._db.row_factory = sqlite3.Row
        self._db.executescript("PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF;" + _TABLES)
        self.counts = PlanCounts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._db.close()

    def add_done(self, marks: Iterable[Mark], model: ModelIdentity) -> None:
        """What earlier runs did; of two rows of a key the later one counts."""
        self._db.executemany(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?, ?)",
            (
                (
                    mark.input_key,
                    mark.input_version,
                    model.made(mark.model_label, mark.weights_digest),
                    mark.settings_digest,
                    mark.status,
                    mark.output_key,
                )
                for mark in marks
            ),
        )

    def add_outputs(self, listing: Iterable[ObjectInfo]) -> None:
        """What lies in the target."""
        self._db.executemany(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?)",
            (
                (info.key, info.version)
                for info in listing
                if not info.key.startswith(f"{RECORDS}/")
            ),
        )

    def add_inputs(
        self, listing: Iterable[ObjectInfo], planner: Planner, *, limit: int | None = None
    ) -> None:
        """Decide for each object; with a limit, stop listing when there is enough to do."""
        wanted = self._wanted(listing, planner)
        while page := list(itertools.islice(wanted, _PAGE)):
            for info in page:
                if limit is not None and self.num_todo >= limit:
                    return
                self._decide(info, planner)

    def _wanted(self, listing: Iterable[ObjectInfo], planner: Planner) -> Iterator[ObjectInfo]:
        for info in listing:
            if planner.is_own(info.key):
                continue
            if planner.wants(info):
                yield info
            else:
                self.counts.ignored += 1

    def _decide(self, info: ObjectInfo, planner: Planner) -> None:
        self.counts.planned += 1
        row = self._db.execute(_LOOK_UP, (info.key,)).fetchone()
        output_key = planner.output_key(info.key)
        if planner.is_done(info, row, output_exists=bool(row and row["there"])):
            self.counts.skipped += 1
            self.counts.quarantined_before += row["status"] == "quarantined"
            return
        self._db.execute(
            "INSERT INTO todo(key, version, size, modified, problem, output, existing)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(info.key, info.version, info.size, info.modified, info.problem),
                *(output_key, self._output(output_key)),
            ),
        )

    def _output(self, key: str) -> str | None:
        found = self._db.execute("SELECT version FROM outputs WHERE key = ?", (key,)).fetchone()
        return None if found is None else str(found["version"])

    @property
    def num_todo(self) -> int:
        """Images to enhance."""
        return self.counts.planned - self.counts.skipped

    def size_on_disk(self) -> int:
        """Bytes of the index so far."""
        (pages,) = self._db.execute("PRAGMA page_count").fetchone()
        (size,) = self._db.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(size)

    def __iter__(self) -> Iterator[WorkItem]:
        for row in self._db.execute("SELECT * FROM todo ORDER BY number"):
            info = ObjectInfo(
                row["key"], row["size"], row["version"], row["modified"], row["problem"]
            )
            yield WorkItem(info, row["output"], row["existing"])
