"""Records of a run: rows in parts during the run, then a manifest, then a summary."""

from __future__ import annotations

import hashlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mirnet.batch.ledger import RunFolder
from mirnet.batch.manifest import SCHEMA, Format, Row, dump_rows
from mirnet.errors import StorageError
from mirnet.signals import advancing
from mirnet.storage.store import KeyRefused, ObjectMissing

logger = logging.getLogger(__name__)

ROWS_PER_SHARD = 250_000
_BYTES_PER_SHARD = 64 * 2**20
_ROWS_PER_GROUP = 10_000


class RunRecord:
    """Writes the records of one run. Memory: the rows since the last part."""

    def __init__(self, folder: RunFolder, *, format: Format) -> None:
        self.folder, self._format = folder, format
        self._pending: list[Row] = []
        self._parts: dict[str, bytes] = {}  # SHA-256 by name
        self._damaged: dict[str, str] = {}  # address of what was found, by name

    def add(self, row: Row) -> None:
        """Remember a row until the next flush."""
        self._pending.append(row)

    def flush(self) -> None:
        """Write the pending rows as a part."""
        if not self._pending:
            return
        data = dump_rows(self._pending, self._format)
        name = self.folder.write_part(len(self._parts), data, self._format)
        self._parts[name] = hashlib.sha256(data).digest()
        self._pending = []

    def finish(self, summary: dict[str, Any]) -> tuple[str, str]:
        """Merge the parts to the manifest, then write the summary; returns both addresses.

        If the store refuses the last part, its rows are in the manifest only. If it refuses to
        merge them, the parts remain in place of the manifest. What somebody else changed in a part
        is left out, kept beside and named.
        """
        try:
            self.flush()
        except KeyRefused:
            raise  # a link among the records, say: no name below it is ours
        except StorageError as error:
            logger.warning("the last rows have no part: %s", error)
        try:
            shards = list(self._write_shards())
        except KeyRefused:
            raise
        except StorageError as error:
            logger.warning("rows stay in parts, without a manifest: %s", error)
            if self._pending:
                logger.error("%d rows are not recorded", len(self._pending))
            shards = [part for part in self._parts if part not in self._damaged]
        store = self.folder.store
        address = store.address(shards[0]) if len(shards) == 1 else store.uri
        damaged = {"damaged_parts": list(self._damaged.values())} if self._damaged else {}
        summary_address = self.folder.write_summary(summary | {"manifest": shards} | damaged)
        self._delete([part for part in advancing(self._parts) if part not in shards])
        return address, summary_address

    def _delete(self, parts: list[str]) -> None:
        try:
            for part in parts:
                self.folder.delete(part)
        except StorageError as error:
            logger.warning("parts stay beside the manifest: %s", error)

    def _read_parts(self) -> Iterator[bytes]:
        for part, digest in advancing(self._parts.items()):
            try:
                data = self.folder.read(part)
            except ObjectMissing:
                address = self.folder.store.address(part)
            else:
                if hashlib.sha256(data).digest() == digest:
                    yield data
                    continue
                address = self.folder.keep_damaged(part, data)
            logger.error("%s: not what this run wrote; its rows are left out", address)
            self._damaged[part] = address
        if self._pending:  # the store refused them as a part
            yield dump_rows(self._pending, self._format)

    def _write_shards(self) -> Iterator[str]:
        shard, number = _Shard(self._format), 0
        for data in self._read_parts():
            shard.append(data)
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
