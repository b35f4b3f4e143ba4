"""The plan of a batch: which inputs exist, are done, are to be done. Memory does not grow with the
keys: the index is a temporary SQLite file, and no order of listings is assumed.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from mirnet.batch.digests import Digests
from mirnet.batch.ledger import InputVersion, is_ledger_key
from mirnet.batch.manifest import KILLS, Row, deaths_in
from mirnet.batch.neighbours import Neighbours
from mirnet.batch.passed_over import Reason, has_suffix, why_passed_over
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.signals import advancing
from mirnet.storage.store import ObjectInfo

_TABLES = """
CREATE TABLE done(key TEXT PRIMARY KEY, version TEXT, same_model INTEGER, settings TEXT,
                  status TEXT, output TEXT, row INTEGER, output_size INTEGER,
                  output_version TEXT, output_digest TEXT,
                  run TEXT, kills INTEGER) WITHOUT ROWID;
CREATE TABLE outputs(key TEXT PRIMARY KEY, version TEXT, size INTEGER) WITHOUT ROWID;
CREATE TABLE todo(number INTEGER PRIMARY KEY, key TEXT, version TEXT, size INTEGER,
                  modified REAL, problem TEXT, output TEXT, existing TEXT, turn INTEGER,
                  place INTEGER, changed INTEGER, deaths INTEGER);
"""
HasDigest = Callable[[str, str], bool]
_LOOK_UP = """
SELECT done.*, outputs.key IS NOT NULL AS there, outputs.version AS found_version,
       outputs.size AS found_size
FROM done LEFT JOIN outputs ON outputs.key = done.output WHERE done.key = ?
"""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One input to enhance. ``existing``: version of the object at the output key.

    ``suspect``: a process may have died of it; it is processed alone. ``changed``: the object at
    the output key has other bytes than its row says. ``deaths``: of processes that worked on it
    alone, at most one per run. ``died``: one of them in this run. ``before``: the inputs right
    before it on which its brightness depends.
    """

    info: ObjectInfo
    output_key: str
    existing: str | None = None
    suspect: bool = False
    changed: bool = False
    deaths: int = 0
    died: bool = False
    before: tuple[InputVersion, ...] = ()


class Turn(IntEnum):
    """When an input is done. ``AGAIN``: it failed before, the longest ago first. ``SUSPECT``: it
    was in flight when a process died. ``CULPRIT``: it was so alone; the longest ago first.
    """

    FRESH = 0
    AGAIN = 1
    SUSPECT = 2
    CULPRIT = 3


@dataclass(frozen=True, slots=True)
class Death:
    """Of a process with an input in flight.

    ``place``: increases from death to death. ``alone``: nothing else was in flight.
    """

    run_id: str
    place: int
    alone: bool


@dataclass
class PlanCounts:
    """What the listing held. ``passed_over``: what was left alone, by reason.

    ``quarantined_before`` and ``kept``, which another model made, are among the skipped. ``ever``:
    images of this source that this or an earlier run has planned, also those that are gone.
    ``outputs_deleted``, ``outputs_changed``: of done images; they are done again.
    """

    planned: int = 0
    ever: int = 0
    skipped: int = 0
    quarantined_before: int = 0
    kept: int = 0
    outputs_deleted: int = 0
    outputs_changed: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Planner:
    """The decisions of a plan: pure functions of one object.

    ``source_digest``: of the source. ``own_prefix``: of a target inside the source. ``named``:
    a person named this one image. ``single_output``: the key of its output.
    """

    model: ModelRef
    params: EnhanceParams
    digests: Digests
    source_digest: str
    own_prefix: str | None = None
    named: bool = False
    single_output: str | None = None

    def why_passed_over(self, info: ObjectInfo) -> Reason | None:
        """Why this object is left alone; none where it is to be enhanced."""
        if self.is_own(info.key):
            return "own"
        return why_passed_over(info, self.params, named=self.named)

    def is_nothing(self, info: ObjectInfo) -> bool:
        """S3's markers of folders, and records of ours that are no images: not even counted."""
        return (
            info.key.endswith("/")
            or not info.key
            or (self.is_own(info.key) and not has_suffix(info.key, self.params))
        )

    def is_own(self, key: str) -> bool:
        """Records of runs, and a target that lies inside the source."""
        if is_ledger_key(key):
            return True
        return self.own_prefix is not None and key.startswith(self.own_prefix)

    def output_key(self, key: str) -> str:
        """The output key of an input, below the target."""
        if self.single_output:
            return self.single_output
        return f"{self.model.label}/{key}" if self.params.layout == "versioned" else key

    def is_done(self, info: ObjectInfo, row: sqlite3.Row | None, *, output_exists: bool) -> bool:
        """Done for this input version, these settings and (if so configured) this model."""
        if row is None or row["version"] != info.version:
            return False
        if row["status"] == "failed" or not self.digests.hold(row["status"], row["settings"]):
            return False
        if row["status"] == "quarantined":
            # of one that a person names, the reason is found again
            return not self.named
        if not output_exists:
            return False
        return self.params.on_new_model == "keep" or bool(row["same_model"])

    def failed_before(self, info: ObjectInfo, row: sqlite3.Row | None) -> bool:
        """Whether this version was tried and failed."""
        return (
            row is not None and row["status"] == "failed" and bool(row["version"] == info.version)
        )


class BatchPlan:
    """A plan on disk, removed when closed.

    In the order of the listing; what may stand in the way of the others comes after them
    (:class:`Turn`).
    """

    def __init__(self) -> None:
        self._has_digest: HasDigest | None = None
        self._deaths: dict[tuple[str, str], list[Death]] = {}
        self._neighbours: Neighbours | None = None
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

    def add_done(self, records: Iterable[Row], planner: Planner) -> None:
        """What earlier runs did with this source; of two rows of a key the later one counts."""
        model = planner.model
        self._db.executemany(
            "INSERT OR REPLACE INTO done VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    record.input_key,
                    record.input_version,
                    model.made(record.model_label, record.weights_digest),
                    record.settings_digest,
                    record.status,
                    record.output_key,
                    row,
                    record.output_size,
                    record.output_version,
                    record.output_digest,
                    record.run_id or "",
                    _deaths_with(record.reason, planner.params),
                )
                for row, record in enumerate(advancing(records))
                if record.is_of(planner.source_digest)
            ),
        )

    def suspect(self, inputs: Mapping[tuple[str, str], list[Death]]) -> None:
        """Before the inputs are added: keys and versions that a process may have died of."""
        self._deaths = dict(inputs)

    def check_outputs(self, has_digest: HasDigest) -> None:
        """Before the inputs are added: done images whose output has changed are done again.

        Args:
            has_digest: whether the object at an output key has this SHA-256; called for those of
                the recorded size and another version only.
        """
        self._has_digest = has_digest

    def add_outputs(self, listing: Iterable[ObjectInfo]) -> None:
        """The objects of the target."""
        self._db.executemany(
            "INSERT OR REPLACE INTO outputs VALUES (?, ?, ?)",
            (
                (info.key, info.version, info.size)
                for info in advancing(listing)
                if not is_ledger_key(info.key)
            ),
        )

    def add_inputs(
        self, listing: Iterable[ObjectInfo], planner: Planner, *, limit: int | None = None
    ) -> None:
        """Decide for each object; with a limit, stop listing when there is enough to do.

        Only what is fresh counts then, so that a limit is not used up on what failed before.
        """
        later = 0
        (self.counts.ever,) = self._db.execute("SELECT COUNT(*) FROM done").fetchone()
        if planner.params.evens:
            most = planner.params.max_bytes, planner.params.kill_attempts
            self._neighbours = Neighbours(self._db, max_bytes=most[0], max_deaths=most[1])
        for info in self._wanted(listing, planner):
            if self._neighbours is not None:
                self._neighbours.add(info)
            if limit is not None and self.num_todo - later >= limit:
                if self._neighbours is None:
                    break
                continue  # one that comes later may be before one of these
            later += self._decide(info, planner) is not Turn.FRESH
        if self._neighbours is not None:
            self._neighbours.isolate(self._suspects(planner), turn=Turn.SUSPECT)
        if limit is not None and self.num_todo > limit:
            self._drop_last(self.num_todo - limit)

    def _suspects(self, planner: Planner) -> set[str]:
        """Keys of which a process may have died, also of inputs that are done."""
        rows = self._db.execute("SELECT key FROM todo WHERE turn >= ?", (Turn.SUSPECT,))
        found = {str(row["key"]) for row in rows}
        for key, version in self._deaths:
            done = self._db.execute(_LOOK_UP, (key,)).fetchone()
            turn, _, _ = self._turn(ObjectInfo(key, 0, version, 0.0), done, planner)
            if turn >= Turn.SUSPECT:
                found.add(key)
        return found

    def _drop_last(self, number: int) -> None:
        self._db.execute(
            "DELETE FROM todo WHERE number IN (SELECT number FROM todo"
            " ORDER BY turn DESC, place DESC, number DESC LIMIT ?)",
            (number,),
        )
        self.counts.planned -= number

    def _wanted(self, listing: Iterable[ObjectInfo], planner: Planner) -> Iterator[ObjectInfo]:
        for info in advancing(listing):
            if planner.is_nothing(info):
                continue
            reason = planner.why_passed_over(info)
            if reason is None:
                yield info
            else:
                self.counts.passed_over[reason] += 1

    def _decide(self, info: ObjectInfo, planner: Planner) -> Turn:
        self.counts.planned += 1
        done = self._db.execute(_LOOK_UP, (info.key,)).fetchone()
        self.counts.ever += done is None
        output_key = planner.output_key(info.key)
        there = bool(done and done["there"])
        is_done = planner.is_done(info, done, output_exists=there)
        changed = is_done and self._is_changed(done)
        self.counts.outputs_changed += changed
        if not there and not is_done:
            self.counts.outputs_deleted += planner.is_done(info, done, output_exists=True)
        if is_done and not changed:
            self.counts.skipped += 1
            bad = done["status"] == "quarantined"
            self.counts.quarantined_before += bad
            self.counts.kept += not bad and not done["same_model"]
            return Turn.FRESH
        turn, place, deaths = self._turn(info, done, planner)
        self._db.execute(
            "INSERT INTO todo(key, version, size, modified, problem, output, existing, turn, place,"
            " changed, deaths) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(info.key, info.version, info.size, info.modified, info.problem),
                *(output_key, self._output(output_key), turn, place, changed, deaths),
            ),
        )
        return turn

    def _is_changed(self, done: sqlite3.Row) -> bool:
        """Whether the output of a done image is known to have other bytes than recorded."""
        if self._has_digest is None or done["status"] == "quarantined":
            return False
        if done["output_version"] in (None, done["found_version"]):
            return False
        if done["output_digest"] is None or done["output_size"] != done["found_size"]:
            return True
        return not self._has_digest(done["output"], done["output_digest"])

    def _turn(
        self, info: ObjectInfo, done: sqlite3.Row | None, planner: Planner
    ) -> tuple[Turn, int, int]:
        """When it is done, its place in that turn, and the runs in which one died with it alone."""
        deaths = self._deaths.get((info.key, info.version), [])
        told: int | None = None
        if done is not None and done["version"] == info.version:
            told = done["kills"]
            if done["status"] != "failed" or told is not None:
                # deaths before count no more: a process has survived it, or they are in its row
                deaths = [death for death in deaths if death.run_id > done["run"]]
        alone = [death for death in deaths if death.alone]
        if alone:
            num_runs = len({death.run_id for death in alone})
            return Turn.CULPRIT, max(death.place for death in alone), num_runs + (told or 0)
        if deaths or told is not None:
            return Turn.SUSPECT, 0, told or 0
        if done is not None and planner.failed_before(info, done):
            return Turn.AGAIN, done["row"], 0
        return Turn.FRESH, 0, 0

    def was_bad(self, key: str, version: str) -> bool:
        """Whether this version of an input was quarantined or failed in an earlier run."""
        found = self._db.execute(
            "SELECT 1 FROM done WHERE key = ? AND version = ? AND status IN"
            " ('quarantined', 'failed')",
            (key, version),
        ).fetchone()
        return found is not None

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
        # two statements, since sorting the fresh ones would take space for all of them
        for which in ("NOT turn ORDER BY number", "turn ORDER BY turn, place, number"):
            for row in self._db.execute(f"SELECT * FROM todo WHERE {which}"):
                info = ObjectInfo(
                    row["key"], row["size"], row["version"], row["modified"], row["problem"]
                )
                suspect = row["turn"] >= Turn.SUSPECT
                changed = bool(row["changed"])
                before = self._neighbours.before(info.key) if self._neighbours else ()
                yield WorkItem(
                    *(info, row["output"], row["existing"], suspect, changed, row["deaths"]),
                    before=before,
                )


def _deaths_with(reason: str | None, params: EnhanceParams) -> int | None:
    """The deaths that a row records; none if its image may be done beside others."""
    if reason == KILLS:
        return params.kill_attempts - 1  # of one that is tried again, one death is enough
    return deaths_in(reason)
