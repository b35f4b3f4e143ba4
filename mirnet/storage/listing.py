"""Listing of a local folder, including links and special files."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from mirnet.atomic import is_part_name
from mirnet.errors import StorageError
from mirnet.junk import is_junk
from mirnet.signals import advance, advancing
from mirnet.storage.store import LINK, OWN, SPECIAL, ObjectInfo

Explained = Callable[[Path], AbstractContextManager[None]]


@dataclass(frozen=True)
class Listing:
    """A folder and how to read it.

    ``follow_links``: follow links to files and folders, without cycles. ``apart``: a folder that
    is skipped if links lead to it.
    """

    root: Path
    follow_links: bool = False
    apart: Path | None = None

    def entries(self, prefix: str, *, explained: Explained) -> Iterator[ObjectInfo]:
        """Files, folder by folder, in order of name.

        Args:
            prefix: if it ends with ``/``, the folder to begin with.
            explained: converts OS errors of a path to our errors.
        """
        start = self.root / prefix if prefix.endswith("/") else self.root
        if not start.is_dir():
            return
        apart = _identity_of(self.apart) if self.follow_links and self.apart else None
        on_the_way = [_identity(start.stat())]
        open_folders = [self._scan(start, explained)]
        while open_folders:
            entry = next(open_folders[-1], None)
            if entry is None:
                open_folders.pop()
                on_the_way.pop()
                continue
            status = self._look_at(entry)
            if isinstance(status, ObjectInfo):
                yield status
            elif status is None:
                continue
            elif not stat.S_ISDIR(status.st_mode):
                yield self._file(entry, status)
            elif (identity := _identity(status)) in on_the_way:
                yield self._problem(entry, LINK)  # a cycle
            elif identity == apart and Path(entry.path) != self.apart:
                yield self._problem(entry, OWN)
            else:
                try:
                    open_folders.append(self._scan(Path(entry.path), explained))
                    on_the_way.append(identity)
                except StorageError:
                    if not is_junk([entry.name]):
                        raise
                    yield self._problem(entry, SPECIAL)  # lost+found is often not readable

    def _scan(self, folder: Path, explained: Explained) -> Iterator[os.DirEntry[str]]:
        advance()  # empty folders have no entry
        with explained(folder), os.scandir(folder) as entries:
            return iter(sorted(advancing(entries), key=lambda entry: entry.name))

    def _look_at(self, entry: os.DirEntry[str]) -> os.stat_result | ObjectInfo | None:
        """The entry as an object; none if it does not count."""
        if is_part_name(entry.name):
            return None
        if entry.is_symlink():
            if not self.follow_links:
                return self._problem(entry, LINK)
            if self._leads_apart(Path(os.path.realpath(entry.path))):
                return self._problem(entry, OWN)
        try:
            return entry.stat()
        except OSError as error:
            if entry.is_symlink():
                return self._problem(entry, "dangling-link")
            if isinstance(error, FileNotFoundError):  # deleted in the meantime
                return None
            return self._problem(entry, "unreadable")  # path too long for the system

    def _leads_apart(self, path: Path) -> bool:
        return self.apart is not None and (path == self.apart or self.apart in path.parents)

    def _file(self, entry: os.DirEntry[str], status: os.stat_result) -> ObjectInfo:
        if not stat.S_ISREG(status.st_mode):
            return self._problem(entry, SPECIAL)
        name = self._key(entry)
        key = _printable(name)
        problem = None if key == name else "name-not-utf8"
        return ObjectInfo(key, status.st_size, version_of(status), status.st_mtime, problem)

    def _problem(self, entry: os.DirEntry[str], problem: str) -> ObjectInfo:
        return ObjectInfo(_printable(self._key(entry)), 0, "", 0.0, problem=problem)

    def _key(self, entry: os.DirEntry[str]) -> str:
        return Path(entry.path).relative_to(self.root).as_posix()


def version_of(status: os.stat_result) -> str:
    """Changes whenever a file is written again: size and modification time (ns)."""
    return f"{status.st_size:x}-{status.st_mtime_ns:x}"


def _identity_of(path: Path) -> tuple[int, int] | None:
    return _identity(path.stat()) if path.exists() else None


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _printable(key: str) -> str:
    return key.encode("utf-8", "backslashreplace").decode("utf-8")
