"""A local folder as a store: whole-or-nothing writes, conditional under a lock."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import IO

from mirnet.batch.storage import (
    Blob,
    Head,
    KeyRefused,
    ObjectInfo,
    ObjectMissing,
    ObjectRefused,
    Store,
)
from mirnet.errors import StorageError

logger = logging.getLogger(__name__)

_PART = ".mirnet-part-"
_BOOKKEEPING = "_mirnet"
_NAME_ERRORS = {
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EINVAL,
    errno.EILSEQ,
}


class LocalStore(Store):
    """Objects are regular files below ``root``; symlinked folders and special files are not.

    A file has no room for metadata, so it lies in a small JSON file below ``bookkeeping``
    (``_mirnet`` in the folder), written before the file itself and tied to its version.
    """

    def __init__(self, root: Path, *, bookkeeping: Path | None = None) -> None:
        self.root = root
        self.uri = str(root)
        self._bookkeeping = bookkeeping or root / _BOOKKEEPING

    def check(self) -> None:
        """A source must be a folder that can be read."""
        if not self.root.exists():
            raise StorageError(f"{self.root}: no such file or folder", transient=False)
        if not self.root.is_dir():
            raise StorageError(f"{self.root}: not a folder", transient=False)
        with self._explained(self.root):
            os.scandir(self.root).close()

    def address(self, key: str) -> str:
        """The path of a key."""
        return str(self.root / key)

    def child(self, name: str) -> LocalStore:
        """The folder ``name`` below this one."""
        return LocalStore(self.root / name, bookkeeping=self._bookkeeping)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Regular files, folder by folder, in order of name."""
        start = self.root / prefix if prefix.endswith("/") else self.root
        if not start.is_dir():
            return
        open_folders = [self._entries(start)]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
            elif entry.is_dir(follow_symlinks=False):
                open_folders.append(self._entries(Path(entry.path)))
            elif not entry.name.startswith(_PART):
                info = self._info(entry)
                if info is not None and info.key.startswith(prefix):
                    yield info

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        with self._explained(folder), os.scandir(folder) as entries:
            return iter(sorted(entries, key=lambda entry: entry.name))

    def _info(self, entry: os.DirEntry[str]) -> ObjectInfo | None:
        key = Path(entry.path).relative_to(self.root).as_posix()
        try:
            status = entry.stat()
        except OSError:
            return ObjectInfo(_printable(key), 0, "", 0.0, problem="dangling-link")
        if not stat.S_ISREG(status.st_mode):
            return None
        problem = None if _printable(key) == key else "name-not-utf8"
        return ObjectInfo(
            _printable(key), status.st_size, _version(status), status.st_mtime, problem
        )

    def head(self, key: str) -> Head | None:
        """Version, metadata and age of a file."""
        path = self._path(key)
        with self._explained(path):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            version = _version(status)
            metadata = self._read_metadata(path, version)
        return Head(status.st_size, version, metadata, time.time() - status.st_mtime)

    def get(self, key: str) -> Blob:
        """Read a file; the version is that of the bytes read."""
        path = self._path(key)
        with self._explained(path), _open(path) as file:
            data = file.read()
            version = _version(os.fstat(file.fileno()))
            return Blob(data, version, self._read_metadata(path, version))

    def read_into(self, key: str, file: IO[bytes]) -> None:
        """Copy the bytes of a file."""
        path = self._path(key)
        with self._explained(path), _open(path) as origin:
            shutil.copyfileobj(origin, file)

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
        """Write beside, then rename under the lock of the store."""
        path = self._path(key)
        with self._explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _part_beside(path) as part:
                part.write(data)
                part.flush()
                os.fsync(part.fileno())
                version = _version(os.fstat(part.fileno()))
                with self._lock() if absent or replaces or metadata else nullcontext():
                    if not _condition_holds(path, replaces=replaces, absent=absent):
                        return None
                    if metadata:
                        self._write_metadata(path, version, metadata)
                    Path(part.name).replace(path)
        return version

    def delete(self, key: str) -> None:
        """Remove a file and its metadata."""
        path = self._path(key)
        with self._explained(path):
            path.unlink(missing_ok=True)
            self._metadata_path(path).unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove the temporary files of killed writers."""
        with self._explained(self.root):
            for part in self.root.rglob(f"{_PART}*"):
                part.unlink(missing_ok=True)

    def copy_from(
        self, source: Store, key: str, target_key: str, *, metadata: Mapping[str, str]
    ) -> None:
        """Written beside, then renamed."""
        path = self._path(target_key)
        with self._explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _part_beside(path) as part:
                source.read_into(key, part)
                part.flush()
                self._write_metadata(path, _version(os.fstat(part.fileno())), metadata)
                Path(part.name).replace(path)

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
            raise KeyRefused(f"{key!r}: not a path below {self.root}")
        return self.root / key

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self._bookkeeping.mkdir(parents=True, exist_ok=True)
        with (self._bookkeeping / "lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _metadata_path(self, path: Path) -> Path:
        # hashed: a key and the folder of another key may not have the same name
        place = os.path.relpath(path, self._bookkeeping)
        name = hashlib.sha256(place.encode()).hexdigest()
        return self._bookkeeping / "meta" / name[:2] / f"{name[2:]}.json"

    def _write_metadata(self, path: Path, version: str, metadata: Mapping[str, str]) -> None:
        """Keep the entry of the file that is there until it has been replaced."""
        known = self._known_metadata(path)
        current = _version(path.stat()) if path.exists() else None
        kept = {key: value for key, value in known.items() if key == current}
        sidecar = self._metadata_path(path)
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        with _part_beside(sidecar) as part:
            part.write(json.dumps(kept | {version: dict(metadata)}).encode())
            part.flush()
            os.fsync(part.fileno())  # an output without it is taken for somebody else's
            Path(part.name).replace(sidecar)

    def _read_metadata(self, path: Path, version: str) -> Mapping[str, str]:
        return self._known_metadata(path).get(version, {})

    def _known_metadata(self, path: Path) -> dict[str, dict[str, str]]:
        sidecar = self._metadata_path(path)
        if not sidecar.is_file():
            return {}
        try:
            known: dict[str, dict[str, str]] = json.loads(sidecar.read_bytes())
        except ValueError:
            logger.warning("%s is damaged: %s counts as not ours", sidecar, path)
            return {}
        return known

    @contextlib.contextmanager
    def _explained(self, path: Path) -> Iterator[None]:
        try:
            yield
        except StorageError:  # an OSError too; of the store that is read
            raise
        except FileNotFoundError as error:
            raise ObjectMissing(f"{path}: no such file") from error
        except PermissionError as error:
            raise StorageError(
                f"{path}: permission denied; check owner and mode", transient=False
            ) from error
        except OSError as error:
            if error.errno in _NAME_ERRORS:
                raise KeyRefused(f"{path}: {error.strerror}") from error
            raise StorageError(f"{path}: {error.strerror or error}", transient=False) from error


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except PermissionError as error:
        raise ObjectRefused(f"{path}: not readable for us", transient=False) from error


@contextlib.contextmanager
def _part_beside(path: Path) -> Iterator[IO[bytes]]:
    """A temporary file in the same folder; removed unless it was renamed."""
    part = tempfile.NamedTemporaryFile(dir=path.parent, prefix=_PART, delete=False)  # noqa: SIM115
    try:
        with part:
            Path(part.name).chmod(0o644)
            yield part
    finally:
        Path(part.name).unlink(missing_ok=True)


def _condition_holds(path: Path, *, replaces: str | None, absent: bool) -> bool:
    if not path.exists():
        return replaces is None
    if absent:
        return False
    return replaces is None or _version(path.stat()) == replaces


def _version(status: os.stat_result) -> str:
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _printable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode("utf-8")
