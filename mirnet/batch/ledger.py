"""The folder ``_mirnet`` of a target. Only this module knows its layout, and reads and writes it.

::

    _mirnet/
        lease.json                   the job at work (mirnet.batch.lease)
        quarantine/KEY               copies of bad inputs (params: enhance.quarantine_prefix)
        runs/RUN_ID/                 one folder per run; their names sort in the order of leases
            conditions.json          choices that affect the bytes of outputs
            max-pixels.json          agreed on by the workers of a Ray cluster
            in-hand.json             inputs in flight; on Ray one object per attempt at a batch:
                                     in-hand-BATCH-000.json
            part-000000.parquet      rows, while the run is under way
            manifest.parquet         all rows; where there are many, manifest-00001.parquet, ...
            damaged/PART             parts that somebody changed, as found
            contact.html, rejected/  before and after
            summary.json             written last: the run has ended

Beside it a local folder keeps the metadata of its objects (mirnet.storage.local).
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, Self, TypeVar

from pydantic import Field, TypeAdapter

from mirnet.batch.manifest import (
    Format,
    Row,
    format_of,
    load_done_records,
    load_rows,
)
from mirnet.batch.records import parse_json
from mirnet.errors import StorageError, problem_of
from mirnet.signals import advance, advancing
from mirnet.storage.local import BOOKKEEPING
from mirnet.storage.store import Blob, Head, ObjectMissing, Store

FOLDER = BOOKKEEPING
_LEASE = "lease.json"
_RUNS = "runs"
_RUN_CONFIG = "conditions.json"
_MAX_PIXELS = "max-pixels.json"
_INFLIGHT = "in-hand"
# metadata of an announcement: which attempt wrote it
_ATTEMPT = "mirnet-attempt"
_PART, _MANIFEST = "part-", "manifest"
_DAMAGED = "damaged/"
_PAGE, _REJECTED = "contact.html", "rejected"
_SUMMARY = "summary.json"
_JSON = "application/json"
# far more than any of ours
_MAX_JSON = 16 * 2**20
UNREADABLE = "is not readable; delete it"
"""What an error says about a damaged record of a run that can be done without."""

T = TypeVar("T")
InputVersion = tuple[str, str]
"""Key and version of an input."""


def is_ledger_key(key: str) -> bool:
    """Whether a key of a target belongs to its ledger."""
    return key.startswith(f"{FOLDER}/")


@dataclass(frozen=True)
class Ledger:
    """The records of one target, in a separate store."""

    store: Store

    @classmethod
    def of_target(cls, target: Store) -> Self:
        return cls(target.child(FOLDER))

    def run(self, run_id: str) -> RunFolder:
        """The folder of a run; it need not exist."""
        return RunFolder(self._runs.child(run_id))

    def past_runs(self) -> PastRuns:
        """The records of earlier runs, from one listing."""
        by_run: dict[str, set[str]] = {}
        for info in advancing(self._runs.list()):
            run_id, _, name = info.key.partition("/")
            by_run.setdefault(run_id, set()).add(name)
        return PastRuns(self, dict(sorted(by_run.items())))

    def run_ids(self) -> set[str]:
        """The names of the folders of runs, from one listing."""
        return {info.key.partition("/")[0] for info in advancing(self._runs.list())}

    @property
    def _runs(self) -> Store:
        return self.store.child(_RUNS)

    @property
    def lease_address(self) -> str:
        """The full name of the lease object, for messages."""
        return self.store.address(_LEASE)

    def lease_head(self) -> Head | None:
        """Version and age of the lease; none where there never was one."""
        return self.store.head(_LEASE)

    def read_lease(self) -> Blob:
        return self.store.get(_LEASE)

    def write_lease(self, data: bytes, *, replaces: str | None) -> str | None:
        """The version written; none where another version lies there than the one to replace."""
        return self.store.put(_LEASE, data, replaces=replaces, absent=replaces is None)

    def ignored_condition(self, lease: bytes) -> str | None:
        """The condition of writes that the store ignores; none as it should be.

        Args:
            lease: as it is; written again where a condition is ignored.
        """
        return self.store.ignored_condition(_LEASE, lease)


@dataclass(frozen=True)
class RunFolder:
    """The objects of one run."""

    store: Store

    @property
    def uri(self) -> str:
        return self.store.uri

    def write_part(self, number: int, data: bytes, format: Format) -> str:
        """Rows of a run under way; the name of the part."""
        return self._put(f"{_PART}{number:06d}.{format}", data)

    def write_manifest(self, number: int | None, data: bytes, format: Format) -> str:
        """All rows, or a shard of them; its name."""
        suffix = "" if number is None else f"-{number:05d}"
        return self._put(f"{_MANIFEST}{suffix}.{format}", data)

    def write_summary(self, summary: Mapping[str, Any]) -> str:
        """The last object of a run; its address."""
        # JSON knows no NaN: null
        strict = json.loads(json.dumps(summary), parse_constant=lambda _: None)
        data = (json.dumps(strict, indent=2) + "\n").encode()
        return self.store.address(self._put(_SUMMARY, data, content_type=_JSON))

    @property
    def page_address(self) -> str:
        """Of the contact sheet."""
        return self.store.address(_PAGE)

    def write_page(self, html: str) -> str:
        """The contact sheet; its address."""
        return self.store.address(self._put(_PAGE, html.encode(), content_type="text/html"))

    def read_source(self) -> str | None:
        """The source of the run, as it was named; none if it is not of this ledger.

        Of a run that was killed, from the config that it wrote before its first output.

        Raises:
            StorageError: the record is not readable.
        """
        if self.store.head(_SUMMARY) is not None:
            return _read(self.store, _SUMMARY, _SUMMARY_FACTS).source
        if self.store.head(_RUN_CONFIG) is not None:
            return _read(self.store, _RUN_CONFIG, _CONFIG_FACTS).source
        return None

    def read(self, name: str) -> bytes:
        """A part or manifest."""
        return self.store.get(name).data

    def delete(self, name: str) -> None:
        """A part that is in the manifest by now."""
        self.store.delete(name)

    def keep_damaged(self, name: str, data: bytes) -> str:
        """Copy a part that somebody changed to where nobody reads it as rows; its address."""
        return self.store.address(self._put(_DAMAGED + name, data))

    def write_inflight(self, inputs: Iterable[InputVersion], *, attempt: str = "") -> None:
        """Announce inputs before they are processed.

        Args:
            attempt: of a worker (:meth:`begin_attempt`); empty: of the job.
        """
        self._put(f"{_INFLIGHT}{attempt}.json", _dump_inputs(inputs), content_type=_JSON)

    def clear_inflight(self, *, attempt: str = "") -> None:
        """Record that no input is in flight."""
        self.store.delete(f"{_INFLIGHT}{attempt}.json")

    def clear_all_inflight(self) -> None:
        """Record that no input is in flight in the job and its workers."""
        for info in list(self.store.list(_INFLIGHT)):
            self.store.delete(info.key)

    def begin_attempt(
        self, batch: str, inputs: Iterable[InputVersion]
    ) -> tuple[str, list[list[InputVersion]]]:
        """Announce the first attempt of a worker at a batch, or find the earlier ones.

        Args:
            batch: identifies it within the run.
            inputs: in flight from now on; suspects are announced later, each by itself.

        Returns:
            The name of this attempt, and what was in flight in each that died; if any has, this
            one is not announced yet.

        Raises:
            StorageError: an announcement is not readable.
        """
        first, own = f"-{batch}-{0:03d}", {_ATTEMPT: secrets.token_hex(8)}
        name, data = f"{_INFLIGHT}{first}.json", _dump_inputs(inputs)
        if self.store.put_if_absent(name, data, content_type=_JSON, metadata=own):
            return first, []
        head = self.store.head(name)
        if head is not None and head.metadata.get(_ATTEMPT) == own[_ATTEMPT]:
            return first, []  # the response was lost, and the repetition of our write refused
        names = sorted(info.key for info in self.store.list(f"{_INFLIGHT}-{batch}-"))
        return f"-{batch}-{len(names):03d}", list(self.inflight(names))

    def inflight(self, names: Iterable[str]) -> Iterator[list[InputVersion]]:
        """What was in flight when a process of this run died.

        Args:
            names: of the objects of this run.

        Raises:
            StorageError: an announcement is not readable.
        """
        for name in sorted(name for name in names if name.startswith(_INFLIGHT)):
            with suppress(ObjectMissing):  # that process is just ending
                yield _read(self.store, name, _INPUTS)

    def write_run_config(self, data: bytes) -> None:
        """Write the choices that affect the bytes of outputs, as JSON."""
        self._put(_RUN_CONFIG, data, content_type=_JSON)

    def agree_on_max_pixels(self, own: int) -> int:
        """The proposal of the first worker, for all workers."""
        self.store.put_if_absent(_MAX_PIXELS, json.dumps(own).encode(), content_type=_JSON)
        return _read(self.store, _MAX_PIXELS, _COUNT)

    def write_rejected(self, input_key: str, jpeg: bytes) -> None:
        self._put(_rejected_name(input_key), jpeg, content_type="image/jpeg")

    def read_rejected(self, input_key: str) -> bytes:
        """As written.

        Raises:
            ObjectMissing: it was not kept.
        """
        return self.read(_rejected_name(input_key))

    def rejected(self, input_keys: list[str]) -> set[str]:
        """Those of the inputs for which a rejected output was kept."""
        there = {info.key for info in self.store.list(f"{_REJECTED}/")}
        return {key for key in input_keys if _rejected_name(key) in there}

    def _put(self, name: str, data: bytes, *, content_type: str = "") -> str:
        self.store.put(name, data, content_type=content_type or "application/octet-stream")
        return name


def _dump_inputs(inputs: Iterable[InputVersion]) -> bytes:
    return json.dumps(list(inputs)).encode()


def _rejected_name(input_key: str) -> str:
    # keys may be longer than a name may be
    return f"{_REJECTED}/{hashlib.sha256(input_key.encode()).hexdigest()[:16]}.jpg"


@dataclass(frozen=True)
class UnfinishedConfig:
    """Of the last run, which did not end: its run config as written, and what workers agreed on."""

    data: bytes
    max_pixels: int | None
    address: str


@dataclass(frozen=True)
class PastRuns:
    """What one listing of the runs found.

    Args:
        names: of the objects of each run, by run id, in the order of their leases.
    """

    ledger: Ledger
    names: Mapping[str, set[str]] = field(default_factory=dict)

    def rows(self) -> Iterator[Row]:
        """Of all runs, in their order; of dead runs, the parts that they left.

        Raises:
            StorageError: a manifest is not readable.
        """
        for run, name in self._files():
            yield from _load(run, name, load_rows)

    def done_records(self, *, outputs: bool = False) -> Iterator[Row]:
        """As :meth:`rows`, with what planning needs only; as :func:`load_done_records`."""
        load = partial(load_done_records, outputs=outputs)
        for run, name in self._files():
            yield from _load(run, name, load)

    def _files(self) -> Iterator[tuple[RunFolder, str]]:
        for run_id, names in self.names.items():
            # parts that are left beside a summary: the store refused to merge or to delete them
            wanted = (_MANIFEST, _PART) if _SUMMARY in names else (_PART,)
            for name in sorted(name for name in names if name.startswith(wanted)):
                advance()
                yield self.ledger.run(run_id), name

    def inflight(self) -> Iterator[tuple[str, list[InputVersion]]]:
        """The id of a run, and the inputs in flight when it or a worker of it died; in the order
        of the runs.

        Raises:
            StorageError: a file of them is not readable.
        """
        for run_id, names in advancing(self.names.items()):
            for inputs in self.ledger.run(run_id).inflight(names):
                yield run_id, inputs

    def unfinished_config(self) -> UnfinishedConfig | None:
        """None where the last run ended, or chose none before it was killed.

        Raises:
            StorageError: a file of it is not readable.
        """
        # a run that was killed before it chose has written no output
        chosen = [run_id for run_id, names in self.names.items() if names & {_RUN_CONFIG, _SUMMARY}]
        if not chosen or _SUMMARY in self.names[last := chosen[-1]]:
            return None
        store, agreed = self.ledger.run(last).store, None
        if _MAX_PIXELS in self.names[last]:
            agreed = _read(store, _MAX_PIXELS, _COUNT)
        address = store.address(_RUN_CONFIG)
        return UnfinishedConfig(_get(store, _RUN_CONFIG), agreed, address)


@dataclass(frozen=True)
class _SummaryFacts:
    source: str


@dataclass(frozen=True)
class _ConfigFacts:
    source: str | None = None  # of an earlier version


_SUMMARY_FACTS = TypeAdapter(_SummaryFacts)
_CONFIG_FACTS = TypeAdapter(_ConfigFacts)
_COUNT = TypeAdapter(Annotated[int, Field(ge=1, lt=2**63)])
_INPUTS = TypeAdapter(list[InputVersion])


def _read(store: Store, name: str, kind: TypeAdapter[T]) -> T:
    address = store.address(name)
    return parse_json(kind, _get(store, name), address=address, advice=UNREADABLE)


def _get(store: Store, name: str) -> bytes:
    head = store.head(name)
    if head is not None and head.size > _MAX_JSON:
        raise StorageError(f"{store.address(name)} {UNREADABLE} (too large)", transient=False)
    return store.get(name).data


def _load(run: RunFolder, name: str, load: Callable[[bytes, Format], Iterator[T]]) -> Iterator[T]:
    """What is no manifest, by its name: to go on without it would do its images again."""
    loaded = load(run.read(name), format_of(name))
    while True:
        try:
            record = next(loaded)
        except StopIteration:
            return
        except Exception as error:  # parsers raise anything on bytes that are not ours
            raise StorageError(
                f"{run.store.address(name)}: not a manifest of ours ({problem_of(error)}); move "
                "it away: outputs that are there are taken up again by their own record",
                transient=False,
            ) from error
        yield record
