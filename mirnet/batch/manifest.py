"""The rows of a manifest: one per input, as Parquet or JSON lines."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from mirnet.results import ModelRef

Status = Literal["enhanced", "passed_through", "quarantined", "failed"]
Format = Literal["parquet", "jsonl"]
# prefix of the reason of a row that failed because of the store
OUTAGE = "storage"


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its result. Luminances are mean luma, 0 to 1 (Rec. 709, as coded);
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
        """As :attr:`ModelRef.label`."""
        return _label(self)


def _arrow_type(annotation: str) -> pa.DataType:
    kinds = {"int": pa.int64(), "float": pa.float64()}
    return kinds.get(annotation.split(" ")[0], pa.string())


SCHEMA = pa.schema([(each.name, _arrow_type(str(each.type))) for each in fields(Row)])
_NAMES = tuple(each.name for each in fields(Row))
_KNOWN = frozenset(_NAMES)


@dataclass(frozen=True, slots=True)
class DoneRecord:
    """The part of a row used by planning: input, result, model and output."""

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
        """As :attr:`ModelRef.label`."""
        return _label(self)

    def is_of(self, source_digest: str) -> bool:
        """Whether the input was in this source; True for old rows, which do not record it."""
        return self.source_digest in (None, source_digest)


def _label(made: Row | DoneRecord) -> str:
    return ModelRef(
        made.model_name,
        made.model_version,
        made.model_run_id,
        weights_digest=made.weights_digest,
    ).label


_DONE_NAMES = tuple(each.name for each in fields(DoneRecord))
_OPTIONAL_OF_DONE = frozenset(each.name for each in fields(DoneRecord) if each.default is None)


def as_dict(row: Row) -> dict[str, Any]:
    """Like dataclasses.asdict, which copies deeply and takes ten times as long."""
    return {name: getattr(row, name) for name in _NAMES}


def dump_rows(rows: list[Row], format: Format) -> bytes:
    """Rows as one file."""
    if format == "jsonl":
        return "".join(json.dumps(as_dict(row)) + "\n" for row in rows).encode()
    buffer = io.BytesIO()
    table = pa.Table.from_pylist([as_dict(row) for row in rows], schema=SCHEMA)
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()


def format_of(name: str) -> Format:
    """The format of a file of rows, by its suffix."""
    return "jsonl" if name.endswith(".jsonl") else "parquet"


def load_rows(data: bytes, format: Format) -> Iterator[Row]:
    """Rows written by :func:`dump_rows`, also of older versions."""
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


def load_done_records(data: bytes, format: Format) -> Iterator[DoneRecord]:
    """Like :func:`load_rows`, only the columns used by planning.

    Raises:
        pyarrow.ArrowException, ValueError, TypeError: not rows of a manifest.
    """
    if format == "jsonl":
        for values in _load_dicts(data, format):
            yield _checked(DoneRecord(*(values.get(name) for name in _DONE_NAMES)))  # type: ignore[arg-type]
        return
    file = pq.ParquetFile(io.BytesIO(data))
    there = set(file.schema_arrow.names)  # older versions wrote fewer
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
