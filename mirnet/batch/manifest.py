"""The rows of a manifest: one per input, as Parquet or JSON lines."""

from __future__ import annotations

import io
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Annotated, Any, Literal, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import AfterValidator, TypeAdapter

from mirnet.errors import NO_MEMORY
from mirnet.results import ModelRef

Status = Literal["enhanced", "passed_through", "quarantined", "failed"]
Format = Literal["parquet", "jsonl"]
# prefix of the reason of a row that failed because of the store
OUTAGE = "storage"
# reason of a row of an image that was given up, since processes died of it
KILLS = "kills-the-process"
# first word of the reason of one that failed since its process died; as is NO_MEMORY
DIED = "died"
_DEATHS = re.compile(rf"({DIED}|{NO_MEMORY}): (\d{{1,6}}) of \d+ deaths: ")


def death_reason(deaths: int, attempts: int, word: str, how: str) -> str:
    """The reason of a row of an image whose process died.

    Args:
        deaths: of the image so far, in all runs.
        attempts: number of deaths after which it is given up.
        word: ``DIED``, or ``NO_MEMORY`` for a death that did not count.
        how: of this one.
    """
    return f"{word}: {deaths} of {attempts} deaths: {how}"


def deaths_in(reason: str | None) -> int | None:
    """The deaths by :func:`death_reason`; none for other reasons."""
    found = _DEATHS.match(reason or "")
    return int(found[2]) if found else None


@dataclass(frozen=True, slots=True)
class Row:
    """One input and its result. Luminances are mean luma, 0 to 1 (Rec. 709, as coded);
    ``shadows`` is that of the darkest tenth of the input. ``strength``, ``exposure`` and
    ``denoise`` are the person's choices of an enhanced image, ``evened`` the stops of ``even``.
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
    output_size: int | None = None
    output_version: str | None = None
    output_digest: str | None = None
    model_note: str | None = None
    strength: float | None = None
    exposure: str | None = None
    denoise: float | None = None
    evened: float | None = None

    @property
    def model_label(self) -> str:
        """As :attr:`ModelRef.label`."""
        digest = self.weights_digest
        return ModelRef(
            self.model_name, self.model_version, self.model_run_id, weights_digest=digest
        ).label

    def is_of(self, source_digest: str) -> bool:
        """Whether the input was in this source; True for old rows, which do not record it."""
        return self.source_digest in (None, source_digest)


def _arrow_type(annotation: str) -> pa.DataType:
    kinds = {"int": pa.int64(), "float": pa.float64()}
    return kinds.get(annotation.split(" ")[0], pa.string())


SCHEMA = pa.schema([(each.name, _arrow_type(str(each.type))) for each in fields(Row)])
_NAMES = tuple(each.name for each in fields(Row))


# what planning needs of a row
_PLANNED = (
    *("input_key", "input_version", "input_size", "status", "run_id", "settings_digest"),
    *("model_name", "output_key", "model_version", "model_run_id", "weights_digest"),
    *("source_digest", "reason"),
)
_OF_OUTPUT = ("output_size", "output_version", "output_digest")
_LARGEST = sys.float_info.max
_DEFAULTS = {each.name: each.default for each in fields(Row)}


def as_dict(row: Row) -> dict[str, Any]:
    """Like dataclasses.asdict, which copies deeply and takes ten times as long."""
    return {name: getattr(row, name) for name in _NAMES}


def dump_rows(rows: list[Row], format: Format) -> bytes:
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
    """Rows written by :func:`dump_rows`, also of older versions.

    Raises:
        Exception: of any type: not rows of a manifest.
    """
    if format == "jsonl":
        yield from (_ROW.validate_json(line, strict=True) for line in _lines(data))
        return
    file = _parquet(data, _NAMES)
    for batch in file.iter_batches(10_000, columns=_known(file, _NAMES)):
        yield from map(_ROW.validate_python, batch.to_pylist())


def load_done_records(data: bytes, format: Format, *, outputs: bool = False) -> Iterator[Row]:
    """Like :func:`load_rows`, but of Parquet only the columns used by planning; the others have
    their defaults.

    Args:
        outputs: with size, version and digest of the outputs, which are much of a file.
    """
    if format == "jsonl":
        yield from load_rows(data, format)
        return
    names = (*_PLANNED, *_OF_OUTPUT) if outputs else _PLANNED
    file = _parquet(data, names)
    known = _known(file, names)
    for batch in file.iter_batches(10_000, columns=known):
        _check_planned(batch)
        columns = (
            batch.column(name).to_pylist() if name in known else itertools.repeat(default)
            for name, default in _DEFAULTS.items()
        )
        yield from map(Row, *columns)


def _lines(data: bytes) -> Iterator[bytes]:
    return (line for line in data.splitlines() if line)


def _parquet(data: bytes, names: tuple[str, ...]) -> pq.ParquetFile:
    """A file whose columns of these names have our types."""
    file = pq.ParquetFile(io.BytesIO(data))
    for name in _known(file, names):
        found, wanted = file.schema_arrow.field(name).type, SCHEMA.field(name).type
        if not _is_like(found, wanted):
            raise ValueError(f"{name} is of type {found}")
    return file


def _is_like(found: pa.DataType, wanted: pa.DataType) -> bool:
    """Whether a column may have been written by us, or rewritten by a tool without loss."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    if pa.types.is_null(found):
        return True
    if wanted == pa.int64():
        return bool(pa.types.is_signed_integer(found))
    if wanted == pa.float64():
        return bool(pa.types.is_floating(found))
    return bool(pa.types.is_string(found) or pa.types.is_large_string(found))


def _known(file: pq.ParquetFile, names: tuple[str, ...]) -> list[str]:
    there = set(file.schema_arrow.names)  # older versions wrote fewer
    return [name for name in names if name in there]


def _check_planned(batch: pa.RecordBatch) -> None:
    """By column: a check per row would take longer than all of the rest."""
    for name in (name for name, default in _DEFAULTS.items() if default is MISSING):
        if batch.schema.get_field_index(name) < 0 or batch.column(name).null_count:
            raise ValueError(f"{name} is missing")
    unknown = set(batch.column("status").unique().to_pylist()) - set(get_args(Status))
    if unknown:
        raise ValueError(f"status is {str(unknown.pop())[:40]!r}")


def parse_strings(values: Mapping[str, str]) -> Row:
    """A row from its columns as text.

    Raises:
        ValueError: a column is missing, or its value is none that we write.
    """
    return _ROW.validate_strings(dict(values))


def _in_range(row: Row) -> Row:
    for name, lowest, highest in _RANGES:
        value = getattr(row, name)
        if value is not None and not lowest <= value <= highest:
            raise ValueError(f"{name} is out of range")
    return row


_RANGES = [
    (field.name, *((0, 2**63 - 1) if field.type == pa.int64() else (-_LARGEST, _LARGEST)))
    for field in SCHEMA
    if field.type != pa.string()
]
# Arrow has checked the types of Parquet, and JSON lines have those of JSON
_ROW = TypeAdapter(Annotated[Row, AfterValidator(_in_range)])
