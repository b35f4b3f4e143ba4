"""Where pairs come from: a folder or a zip file, read without trusting its names or sizes."""

from __future__ import annotations

import os
import shutil
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from mirnet.errors import DataError

MAX_FILE_BYTES = 2**30
"""An image file larger than this is refused."""
_MAX_RATIO = 100
_RATIO_FROM = 2**24
_JUNK = frozenset({"__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Entry:
    """One file of a source."""

    path: PurePosixPath
    """Below the source; never absolute, never with ``..``."""
    size: int
    """Bytes."""


class Source(Protocol):
    """Files by relative path."""

    def entries(self) -> list[Entry]:
        """All files, junk of operating systems left out, sorted by path."""

    def copy(self, entry: Entry, target: Path) -> None:
        """Write the bytes of an entry to a file."""

    def fingerprint(self) -> str:
        """The same as long as the source is."""


@contextmanager
def open_source(path: Path) -> Iterator[Source]:
    """A folder or a zip file.

    Raises:
        DataError: neither, or a zip file that is damaged or dangerous; names the entry.
    """
    if path.is_dir():
        yield FolderSource(path)
        return
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder")
    try:
        with zipfile.ZipFile(path) as archive:
            yield ZipSource(path, archive)
    except zipfile.BadZipFile as error:
        raise DataError(f"{path}: not a zip file, or a damaged one: {error}") from error


@dataclass(frozen=True)
class FolderSource:
    """Files below a folder; links to folders are not followed."""

    root: Path

    def entries(self) -> list[Entry]:
        """See :class:`Source`."""
        found = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder) / name
                relative = PurePosixPath(path.relative_to(self.root).as_posix())
                if not _is_junk(relative) and path.is_file():
                    found.append(Entry(relative, path.stat().st_size))
        return sorted(found, key=lambda entry: entry.path)

    def copy(self, entry: Entry, target: Path) -> None:
        """See :class:`Source`."""
        shutil.copyfile(self.root / entry.path, target)

    def fingerprint(self) -> str:
        """See :class:`Source`."""
        return f"folder {self.root.resolve()}"


@dataclass(frozen=True)
class ZipSource:
    """Entries of a zip file. Nothing is extracted by the names that it gives."""

    path: Path
    archive: zipfile.ZipFile

    def entries(self) -> list[Entry]:
        """See :class:`Source`."""
        return sorted(self._by_entry, key=lambda entry: entry.path)

    def copy(self, entry: Entry, target: Path) -> None:
        """See :class:`Source`."""
        info = self._by_entry[entry]
        try:
            with self.archive.open(info) as stream, target.open("wb") as file:
                _copy_at_most(stream, file, entry)
        except (
            zipfile.BadZipFile,
            EOFError,
            NotImplementedError,
            RuntimeError,
            zlib.error,
        ) as error:
            raise DataError(f"{self.path}: {entry.path}: {error}") from error

    def fingerprint(self) -> str:
        """See :class:`Source`."""
        known = self.path.stat()
        return f"zip {self.path.resolve()} {known.st_size} {known.st_mtime_ns}"

    @cached_property
    def _by_entry(self) -> dict[Entry, zipfile.ZipInfo]:
        found: dict[Entry, zipfile.ZipInfo] = {}
        for info in self.archive.infolist():
            path = self._checked(info)
            if path is not None:
                found[Entry(path, info.file_size)] = info
        return found

    def _checked(self, info: zipfile.ZipInfo) -> PurePosixPath | None:
        """Where an entry belongs; none for folders, links and junk."""
        # some archives have Windows' separators
        path = PurePosixPath(info.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
            raise DataError(f"{self.path}: {info.filename!r} leads out of the archive: refused")
        if info.is_dir() or _is_junk(path) or stat.S_ISLNK(info.external_attr >> 16):
            return None
        ratio = info.file_size / max(1, info.compress_size)
        if info.file_size > MAX_FILE_BYTES or (info.file_size > _RATIO_FROM and ratio > _MAX_RATIO):
            raise DataError(
                f"{self.path}: {info.filename!r} unpacks to {info.file_size} bytes "
                f"({ratio:.0f} times its size): refused as a decompression bomb"
            )
        return path


def _copy_at_most(stream: IO[bytes], file: IO[bytes], entry: Entry) -> None:
    left = entry.size
    while chunk := stream.read(2**20):
        left -= len(chunk)
        if left < 0:
            raise DataError(f"{entry.path}: holds more than the {entry.size} bytes it declares")
        file.write(chunk)


def _is_junk(path: PurePosixPath) -> bool:
    return any(part in _JUNK for part in path.parts) or path.name.startswith(".")
