"""Records of a run: rows in parts during the run, then a manifest, then a summary."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mirnet.batch.ledger import RunFolder
from mirnet.batch.manifest import SCHEMA, Format, Row, dump_rows
from mirnet.signals import advancing

ROWS_PER_SHARD = 250_000
_BYTES_PER_SHARD = 64 * 2**20
_ROWS_PER_GROUP = 10_000


class RunRecord:
    """Writes the records of one run. Memory: the rows since the last part."""

    def __init__(self, folder: RunFolder, *, format: Format) -> None:
        self.folder, self._format = folder, format
        self._pending: list[Row] = []
        self._parts: list[str] = []

    def add(self, row: Row) -> None:
        """Remember a row until the next flush."""
        self._pending.append(row)

    def flush(self) -> None:
        """Write the pending rows as a part."""
        if not self._pending:
            return
        data = dump_rows(self._pending, self._format)
        self._parts.append(self.folder.write_part(len(self._parts), data, self._format))
        self._pending = []

    def finish(self, summary: dict[str, Any]) -> tuple[str, str]:
        """Merge the parts to the manifest, then write the summary; returns both addresses."""
        self.flush()
        shards = list(self._write_shards())
        store = self.folder.store
        address = store.address(shards[0]) if len(shards) == 1 else store.uri
        summary_address = self.folder.write_summary(summary | {"manifest": shards})
        for part in advancing(self._parts):
            self.folder.delete(part)
        return address, summary_address

    def _write_shards(self) -> Iterator[str]:
        shard, number = _Shard(self._format), 0
        for part in advancing(self._parts):
            shard.append(self.folder.read(part))
            if shard.is_full:
                number += 1
                yield self.folder.write_manifest(number, shard.close(), self._format)
                shard = _Shard(self._format)
        if shard.num_rows or not number:
            last = number + 1 if number else None
            yield self.folder.write_manifest(last, shard.close(), self._format)


class _Shard:
    """Parts merged to one file. Memory: the file, and the rows of a row group."""

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
