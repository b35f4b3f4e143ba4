"""What a run leaves behind: one row per input, in parts while it runs, then a manifest, then a
summary as its last object.
"""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mirnet.errors import StorageError
from mirnet.signals import advance, advancing
from mirnet.storage.store import Store

Status = Literal["enhanced", "passed_through", "quarantined", "failed"]
Format = Literal["parquet", "jsonl"]
RECORDS = "_mirnet"
RUNS = "runs"
SUMMARY = "summary.json"
# begins the reason of a row that failed because the store did not answer well
OUTAGE = "storage"
ROWS_PER_SHARD = 250_000
_BYTES_PER_SHARD = 64 * 2**20
_ROWS_PER_GROUP = 10_000


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model, from which run, data and code. ``weights_digest``: SHA-256."""

    name: str
    version: str | None = None
    run_id: str | None = None
    data_digest: str | None = None
    git_commit: str | None = None
    weights_digest: str | None = None

    @property
    def label(self) -> str:
        """Short and fit for a key: ``mirnet-7``, of a folder ``model-9f86d081884c``."""
        weights = self.weights_digest and self.weights_digest[:12]
        version = self.version or weights or self.run_id or "unversioned"
        return f"{self.name}-{version}".replace("/", "-")

    def made(self, label: str, weights_digest: str | None) -> bool:
        """Whether what carries this label and digest is of this model.

        Two registries may both have a version 7, so the weights count too; outputs of Mirnet
        before it knew them have none.
        """
        known = weights_digest and self.weights_digest
        return label == self.label and (not known or weights_digest == self.weights_digest)


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its fate. Luminances are mean luma of 0 to 1 (Rec. 709, as coded), and
    ``shadows`` is that of the darkest tenth of the input.
    """

    input_key: str
    input_version: str
    input_size: int
    status: Status
    run_id: str
    settings_digest: str
    model_name: str
    output_key: str | None = None
    model_version: str | None = None
    model_run_id: str | None = None
    data_digest: str | None = None
    git_commit: str | None = None
    weights_digest: str | None = None
    reason: str | None = None
    seconds: float = 0.0
    luminance_before: float | None = None
    luminance_after: float | None = None
    width: int | None = None
    height: int | None = None
    dark_share: float | None = None
    bright_share: float | None = None
    noise: float | None = None
    saturation: float | None = None
    shadows: float | None = None
    source_digest: str | None = None
    dropped: str | None = None

    @property
    def model_label(self) -> str:
        """As :attr:`ModelIdentity.label`."""
        return _label(self)


def _arrow_type(annotation: str) -> pa.DataType:
    kinds = {"int": pa.int64(), "float": pa.float64()}
    return kinds.get(annotation.split(" ")[0], pa.string())


SCHEMA = pa.schema([(each.name, _arrow_type(str(each.type))) for each in fields(Row)])
_NAMES = tuple(each.name for each in fields(Row))
_KNOWN = frozenset(_NAMES)


@dataclass(frozen=True, slots=True)
class DoneRecord:
    """What planning needs of a row: whether this input has been done, by what, to where."""

    input_key: str
    input_version: str
    status: Status
    settings_digest: str
    model_name: str
    output_key: str | None = None
    model_version: str | None = None
    model_run_id: str | None = None
    weights_digest: str | None = None
    source_digest: str | None = None

    @property
    def model_label(self) -> str:
        """As :attr:`ModelIdentity.label`."""
        return _label(self)

    def is_of(self, source_digest: str) -> bool:
        """Whether the input lay in this source; rows of older Mirnets do not say in which."""
        return self.source_digest in (None, source_digest)


def _label(made: Row | DoneRecord) -> str:
    return ModelIdentity(
        made.model_name,
        made.model_version,
        made.model_run_id,
        weights_digest=made.weights_digest,
    ).label


_DONE_NAMES = tuple(each.name for each in fields(DoneRecord))
_OPTIONAL_OF_DONE = frozenset(each.name for each in fields(DoneRecord) if each.default is None)


def as_dict(row: Row) -> dict[str, Any]:
    """As dataclasses.asdict, which copies deeply and takes ten times as long."""
    return {name: getattr(row, name) for name in _NAMES}


def dump_rows(rows: list[Row], format: Format) -> bytes:
    """Rows as one file."""
    if format == "jsonl":
        return "".join(json.dumps(as_dict(row)) + "\n" for row in rows).encode()
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([as_dict(row) for row in rows], schema=SCHEMA)
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def load_rows(data: bytes, format: Format) -> Iterator[Row]:
    """What :func:`dump_rows` wrote, by this or an older version of Mirnet."""
    for values in _load_dicts(data, format):
        yield Row(**{name: value for name, value in values.items() if name in _KNOWN})


def _load_dicts(data: bytes, format: Format) -> Iterator[dict[str, Any]]:
    if format == "jsonl":
        for line in data.splitlines():
            if line:
                values = json.loads(line)
                if not isinstance(values, dict):
                    raise ValueError(f"a line holds no object: {line[:40]!r}")
                yield values
        return
    for batch in pq.ParquetFile(io.BytesIO(data)).iter_batches(10_000):
        yield from batch.to_pylist()


def _load_done_records(data: bytes, format: Format) -> Iterator[DoneRecord]:
    if format == "jsonl":
        for values in _load_dicts(data, format):
            yield _checked(DoneRecord(*(values.get(name) for name in _DONE_NAMES)))  # type: ignore[arg-type]
        return
    file = pq.ParquetFile(io.BytesIO(data))
    there = set(file.schema_arrow.names)  # an older Mirnet wrote fewer
    for batch in file.iter_batches(10_000, columns=[n for n in _DONE_NAMES if n in there]):
        columns = (
            batch.column(name).to_pylist() if name in there else itertools.repeat(None)
            for name in _DONE_NAMES
        )
        yield from map(_checked, map(DoneRecord, *columns))


def _checked(mark: DoneRecord) -> DoneRecord:
    for name in _DONE_NAMES:
        value = getattr(mark, name)
        if not (isinstance(value, str) or (value is None and name in _OPTIONAL_OF_DONE)):
            raise ValueError(f"{name} is {value!r}")
    return mark


class RunRecord:
    """Writes what one run did. Memory: the rows since the last part."""

    def __init__(self, records: Store, run_id: str, *, format: Format) -> None:
        self.store = records.child(RUNS).child(run_id)
        self._format = format
        self._pending: list[Row] = []
        self._parts: list[str] = []

    @property
    def uri(self) -> str:
        """The folder of this run."""
        return self.store.uri

    def add(self, row: Row) -> None:
        """Remember a row until the next flush."""
        self._pending.append(row)

    def flush(self) -> None:
        """Write what is pending as a part."""
        if not self._pending:
            return
        name = f"part-{len(self._parts):06d}.{self._format}"
        self.store.put(name, dump_rows(self._pending, self._format))
        self._parts.append(name)
        self._pending = []

    def attach(self, name: str, data: bytes, *, content_type: str) -> str:
        """Write a further object beside the manifest; its address."""
        self.store.put(name, data, content_type=content_type)
        return self.store.address(name)

    def finish(self, summary: dict[str, Any]) -> tuple[str, str]:
        """Join the parts to the manifest, then write the summary; the addresses of both."""
        self.flush()
        shards = list(self._write_shards())
        address = self.store.address(shards[0]) if len(shards) == 1 else self.store.uri
        summary = summary | {"manifest": shards}
        self.store.put(
            SUMMARY,
            (json.dumps(summary, indent=2) + "\n").encode(),
            content_type="application/json",
        )
        for part in advancing(self._parts):
            self.store.delete(part)
        return address, self.store.address(SUMMARY)

    def _write_shards(self) -> Iterator[str]:
        shard, number = _Shard(self._format), 0
        for part in advancing(self._parts):
            shard.append(self.store.get(part).data)
            if shard.is_full:
                number += 1
                yield self._write_shard(f"manifest-{number:05d}", shard)
                shard = _Shard(self._format)
        if shard.num_rows or not number:
            yield self._write_shard(f"manifest-{number + 1:05d}" if number else "manifest", shard)

    def _write_shard(self, stem: str, shard: _Shard) -> str:
        name = f"{stem}.{self._format}"
        self.store.put(name, shard.close())
        return name


class _Shard:
    """Parts joined to one file. Memory: the file, and the rows of a row group."""

    def __init__(self, format: Format) -> None:
        self._buffer = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None
        if format == "parquet":
            self._writer = pq.ParquetWriter(self._buffer, SCHEMA, compression="zstd")
        self._tables: list[pa.Table] = []
        self.num_rows = 0

    @property
    def is_full(self) -> bool:
        return self.num_rows >= ROWS_PER_SHARD or self._buffer.tell() >= _BYTES_PER_SHARD

    def append(self, part: bytes) -> None:
        if self._writer is None:
            self._buffer.write(part)
            self.num_rows += part.count(b"\n")
            return
        self._tables.append(pq.read_table(io.BytesIO(part)))
        self.num_rows += self._tables[-1].num_rows
        if sum(table.num_rows for table in self._tables) >= _ROWS_PER_GROUP:
            self._write_group(self._writer)

    def close(self) -> bytes:
        if self._writer is not None:
            self._write_group(self._writer)
            self._writer.close()
        return self._buffer.getvalue()

    def _write_group(self, writer: pq.ParquetWriter) -> None:
        if self._tables:
            writer.write_table(pa.concat_tables(self._tables))
            self._tables = []


def past_rows(records: Store) -> Iterator[Row]:
    """Rows of all runs, in the order of their leases; of dead runs, the parts they left."""
    for file in _past_files(records):
        with file.explained():
            yield from load_rows(file.data, file.format)


def past_done_records(records: Store) -> Iterator[DoneRecord]:
    """As :func:`past_rows`, with what planning needs only."""
    for file in _past_files(records):
        with file.explained():
            yield from _load_done_records(file.data, file.format)


@dataclass(frozen=True)
class _PastFile:
    store: Store
    name: str
    format: Format

    @property
    def data(self) -> bytes:
        return self.store.get(self.name).data

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What is no manifest, by its name: to go on without it would do its images again."""
        try:
            yield
        except (pa.ArrowException, ValueError, TypeError) as error:
            reason = (str(error).splitlines() or [repr(error)])[0]
            raise StorageError(
                f"{self.store.address(self.name)}: not a manifest of ours ({reason}); move it "
                "away: outputs that are there are taken up again by their own record",
                transient=False,
            ) from error


def _past_files(records: Store) -> Iterator[_PastFile]:
    runs = records.child(RUNS)
    by_run: dict[str, list[str]] = {}
    for info in runs.list():
        run_id, _, name = info.key.partition("/")
        by_run.setdefault(run_id, []).append(name)
    for run_id in sorted(by_run):
        names = by_run[run_id]
        wanted = "manifest" if SUMMARY in names else "part-"
        for name in sorted(name for name in names if name.startswith(wanted)):
            format: Format = "jsonl" if name.endswith(".jsonl") else "parquet"
            advance()
            yield _PastFile(runs.child(run_id), name, format)
