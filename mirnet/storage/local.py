"""A local folder as a store: atomic writes, conditional under a lock."""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO, Self

from pydantic import TypeAdapter

from mirnet.atomic import create_part, is_part_name, remove_part
from mirnet.beneath import Beneath, LinkInTheWay, NotRegular, open_regular
from mirnet.errors import StorageError
from mirnet.signals import advancing
from mirnet.storage.listing import Listing, version_of
from mirnet.storage.store import (
    Blob,
    Head,
    KeyRefused,
    NoSuchPlace,
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    ObjectRefused,
    Store,
)

logger = logging.getLogger(__name__)

BOOKKEEPING = "_mirnet"
"""The folder below a target that is ours; mirnet.batch.ledger says what else lies in it."""
# metadata by version of the file; by pydantic, which refuses wrong types and deep nesting
_MAX_SIDECAR = 2**20
_SIDECAR = TypeAdapter(dict[str, dict[str, str]])
_NAME_ERRORS = {
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.EILSEQ,
}


class LocalStore(Store):
    """Objects are regular files below ``root``; links below it are neither read nor written
    through, and special files are not objects.

    Metadata of a file are stored in a small JSON file below ``bookkeeping``
    (``_mirnet`` in the folder), written before the file itself and linked to its version.

    Args:
        root: links in its path are followed.
        bookkeeping: a separate folder for the metadata.
        follow_links: follow links below ``root``; for a source only.
        apart: a folder whose files are not listed if links lead to them.
    """

    def __init__(
        self,
        root: Path,
        *,
        bookkeeping: Path | None = None,
        follow_links: bool = False,
        apart: Path | None = None,
    ) -> None:
        self._follow = follow_links
        self._apart = apart
        books = Beneath(bookkeeping) if bookkeeping else Beneath(root).child(BOOKKEEPING)
        self._set_place(Beneath(root), books)

    def _set_place(self, place: Beneath, bookkeeping: Beneath) -> None:
        self._place, self._bookkeeping = place, bookkeeping
        self.root = place.path
        self.uri = str(place.path)

    def check(self) -> None:
        """A source must be a folder that can be read."""
        if not self.root.exists():
            raise NoSuchPlace(f"{self.root}: no such file or folder", transient=False)
        if not self.root.is_dir():
            raise NoSuchPlace(f"{self.root}: neither a file nor a folder", transient=False)
        with self._explained(self.root):
            os.scandir(self.root).close()

    def address(self, key: str) -> str:
        return str(self.root / key)

    def child(self, name: str) -> LocalStore:
        child = copy.copy(self)
        child._set_place(self._place.child(name), self._bookkeeping)
        return child

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Regular files, folder by folder, in order of name; links and special files by name,
        as a problem.
        """
        with self._explained(self.root):
            if not self._is_there(prefix if prefix.endswith("/") else ""):
                return
        listing = Listing(self.root, follow_links=self._follow, apart=self._apart)
        for info in listing.entries(prefix, explained=self._explained):
            if info.key.startswith(prefix):
                yield info

    def _is_there(self, inner: str) -> bool:
        try:
            with self._place.child(inner).open():
                return True
        except FileNotFoundError:
            return False

    def head(self, key: str) -> Head | None:
        """Version, metadata and age of a file; a link counts as a foreign file."""
        with self._explained(self.root / key):
            try:
                status = self._status(key)
                if status is None:
                    return None
                metadata = self._known_metadata(key).get(version_of(status), {})
            except (FileNotFoundError, NotADirectoryError):
                return None
        age = time.time() - status.st_mtime
        return Head(status.st_size, version_of(status), metadata, age)

    def _status(self, key: str) -> os.stat_result | None:
        folder, name = self._split(key)
        if self._follow:
            return (self.root / key).stat()
        with folder.open() as opened:
            return _status_in(opened, name)

    def get(self, key: str) -> Blob:
        """Read a file; the version is that of the bytes read."""
        with self._explained(self.root / key), self._open(key) as file:
            data = file.read()
            version = version_of(os.fstat(file.fileno()))
            return Blob(data, version, self._known_metadata(key).get(version, {}))

    def read_into(self, key: str, file: IO[bytes], *, version: str | None = None) -> None:
        with self._explained(self.root / key), self._open(key) as origin:
            shutil.copyfileobj(origin, file)
            # after the copy: it may be written while it is read
            if version not in (None, version_of(os.fstat(origin.fileno()))):
                raise ObjectChanged(f"{self.root / key}: changed since it was listed")

    def _open(self, key: str) -> IO[bytes]:
        folder, name = self._split(key)
        try:
            if not self._follow:
                return os.fdopen(folder.open_file(name), "rb")
            return os.fdopen(open_regular(self.root / key), "rb")
        except (PermissionError, LinkInTheWay, NotRegular) as error:
            why = "not readable for us" if isinstance(error, PermissionError) else error.strerror
            raise ObjectRefused(f"{self.root / key}: {why}", transient=False) from error

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",  # noqa: ARG002 - files have none
        metadata: Mapping[str, str] | None = None,
        replaces: str | None = None,
        absent: bool = False,
    ) -> str | None:
        """Write a temporary file, then rename it under the lock of the store."""
        folder, name = self._split(key)
        with (
            self._explained(self.root / key),
            folder.open(make=True) as opened,
            _Part(opened) as part,
        ):
            part.file.write(data)
            version = part.finish()
            with self._lock() if absent or replaces or metadata else nullcontext():
                if not _condition_holds(opened, name, replaces=replaces, absent=absent):
                    return None
                if metadata:
                    self._write_metadata(key, opened, version, metadata)
                part.rename(name)
        return version

    def delete(self, key: str) -> None:
        folder, name = self._split(key)
        books, entry = self._metadata_place(key)
        with self._explained(self.root / key):
            _unlink(folder, name)
            _unlink(books, entry)

    def sweep(self) -> None:
        with self._explained(self.root):
            for file in _files(self.root):
                if is_part_name(file.name):
                    remove_part(file.path)

    def copy_from(
        self,
        source: Store,
        key: str,
        target_key: str,
        *,
        metadata: Mapping[str, str],
        version: str | None = None,
    ) -> None:
        """Copy to a temporary file, then rename it."""
        folder, name = self._split(target_key)
        with (
            self._explained(self.root / target_key),
            folder.open(make=True) as opened,
            _Part(opened) as part,
        ):
            source.read_into(key, part.file, version=version)
            self._write_metadata(target_key, opened, part.finish(), metadata)
            part.rename(name)

    def _split(self, key: str) -> tuple[Beneath, str]:
        parts = key.split("/")
        if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise KeyRefused(f"{key!r}: not a path below {self.root}")
        folder = self._place
        for part in parts[:-1]:
            folder = folder.child(part)
        return folder, parts[-1]

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        with self._bookkeeping.open(make=True) as books:
            # a pipe is an error, and does not block
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open("lock", flags, 0o666, dir_fd=books), "wb") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def _metadata_place(self, key: str) -> tuple[Beneath, str]:
        # hashed: the name of a key must not equal the folder of another key
        place = os.path.relpath(self.root / key, self._bookkeeping.path)
        name = hashlib.sha256(place.encode()).hexdigest()
        return self._bookkeeping.child("meta").child(name[:2]), f"{name[2:]}.json"

    def _write_metadata(
        self, key: str, folder: int, version: str, metadata: Mapping[str, str]
    ) -> None:
        """Keep the entry of the existing file until it is replaced.

        Args:
            folder: descriptor of the folder of the file.
        """
        status = _status_in(folder, key.rpartition("/")[2])
        current = None if status is None else version_of(status)
        kept = {
            version: entry
            for version, entry in self._known_metadata(key).items()
            if version == current
        }
        place, name = self._metadata_place(key)
        with place.open(make=True) as books, _Part(books) as part:
            part.file.write(json.dumps(kept | {version: dict(metadata)}).encode())
            part.finish()  # an output without it counts as foreign
            part.rename(name)

    def _known_metadata(self, key: str) -> dict[str, dict[str, str]]:
        place, name = self._metadata_place(key)
        try:
            with os.fdopen(place.open_file(name), "rb") as file:
                data = file.read(_MAX_SIDECAR)
        except (FileNotFoundError, NotRegular):
            return {}
        try:
            return _SIDECAR.validate_json(data, strict=True)
        except ValueError:
            sidecar, path = place.path / name, self.root / key
            logger.warning("%s is damaged: %s counts as not ours", sidecar, path)
            return {}

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except StorageError:  # an OSError too; of the source store
            raise
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path}: no such file") from error
        except LinkInTheWay as error:
            raise KeyRefused(f"{error.filename}: {error.strerror}") from error
        except PermissionError as error:
            raise StorageError(
                f"{path}: permission denied; check owner and mode", transient=False
            ) from error
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                raise KeyRefused(f"{path}: {error.strerror}") from error
            raise StorageError(f"{path}: {error.strerror or error}", transient=False) from error


class _Part:
    """A temporary file in an open folder; removed unless it was renamed."""

    def __init__(self, folder: int) -> None:
        self._folder = folder

    def __enter__(self) -> Self:
        self._name, descriptor = create_part(mode=0o666, dir_fd=self._folder)
        self.file: IO[bytes] = os.fdopen(descriptor, "w+b")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._folder)

    def finish(self) -> str:
        """Sync to the disk; returns the version of the file."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return version_of(os.fstat(self.file.fileno()))

    def rename(self, name: str) -> None:
        """Rename in the folder, also over a link, whose destination is unchanged."""
        os.rename(self._name, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)


def _files(root: Path) -> Iterator[os.DirEntry[str]]:
    """All files below a folder; links are not followed, unreadable folders are skipped."""
    folders = [str(root)]
    while folders:
        gone = (FileNotFoundError, NotADirectoryError, PermissionError)
        with contextlib.suppress(*gone), os.scandir(folders.pop()) as entries:
            for entry in advancing(entries):
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                else:
                    yield entry


def _status_in(folder: int, name: str) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unlink(folder: Beneath, name: str) -> None:
    with contextlib.suppress(FileNotFoundError), folder.open() as opened:
        os.unlink(name, dir_fd=opened)


def _condition_holds(folder: int, name: str, *, replaces: str | None, absent: bool) -> bool:
    status = _status_in(folder, name)
    if status is None:
        return replaces is None
    if absent:
        return False
    return replaces is None or version_of(status) == replaces
