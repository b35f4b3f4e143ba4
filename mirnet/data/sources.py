"""The source of an import: a folder or an untrusted zip file."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from mirnet.beneath import Beneath, open_regular
from mirnet.data.archives import Limits, Unpacking, is_archive, kind_of
from mirnet.errors import DataError
from mirnet.junk import is_junk

Copy = Callable[[Path], None]


@dataclass(frozen=True)
class Entry:
    path: PurePosixPath
    """Below the source; never absolute, never with ``..``."""
    size: int
    """Bytes."""
    changed_ns: tuple[int, ...] = ()
    """Modification and change time of a file of a folder."""


@dataclass(frozen=True)
class Source:
    """Files by relative path; an inner archive is treated like a folder."""

    root: Path
    copies: Mapping[Entry, Copy]
    links: tuple[PurePosixPath, ...]
    """Not followed."""

    def entries(self) -> list[Entry]:
        """All files except junk of operating systems, sorted by path."""
        return sorted(self.copies, key=lambda entry: entry.path)

    def copy(self, entry: Entry, target: Path) -> None:
        """Write the bytes of an entry to a file.

        Raises:
            DataError: it is damaged, or differs from its header; names it.
            OSError: it cannot be read or written.
        """
        self.copies[entry](target)

    def fingerprint(self) -> str:
        """Changes if the source or one of its files changes."""
        status = self.root.stat()
        parts = [str(self.root.resolve())]
        if not self.root.is_dir():
            parts += [str(status.st_size), *map(str, _changed_ns(status))]
        parts += map(repr, self.entries())
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def open_source(
    path: Path, *, limits: Limits | None = None, follow_links: bool = False
) -> Iterator[Source]:
    """A folder, or a zip file and the zip files in it. Arguments as of the import.
    Raises:
        DataError: neither, or a zip file that is damaged or dangerous; names the entry.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    with ExitStack() as stack:
        found = _Found(path, Unpacking(limits or Limits(), stack))
        if path.is_dir():
            _walk(path, found, follow_links=follow_links)
        elif is_archive(path):
            _unpack(path, found)
        else:
            raise DataError(f"{path}: not a zip file{kind_of(path)}")
        yield Source(path, found.copies, tuple(found.links))


@dataclass
class _Found:
    root: Path
    unpacking: Unpacking
    copies: dict[Entry, Copy] = field(default_factory=dict)
    links: list[PurePosixPath] = field(default_factory=list)


def _walk(root: Path, found: _Found, *, follow_links: bool) -> None:
    """All files below a folder; a folder reached again through links is not entered again."""
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(root, followlinks=follow_links):
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = [name for name in inner if not name.startswith(".")]
        for name in sorted([*inner, *names]):
            path = Path(folder) / name
            relative = PurePosixPath(path.relative_to(root).as_posix())
            if is_junk(relative.parts):
                continue
            if path.is_symlink() and not follow_links:
                found.links.append(relative)
            elif path.is_file():
                _take_file(path, relative, found, follow_links=follow_links)


def _take_file(path: Path, relative: PurePosixPath, found: _Found, *, follow_links: bool) -> None:
    if relative.name.startswith("."):
        return

    def copy(target: Path) -> None:
        if follow_links:
            file = open_regular(path)
        else:  # nor a link that replaced a folder in the meantime
            file = Beneath(found.root, relative.parts[:-1]).open_file(relative.name)
        with os.fdopen(file, "rb") as stream, target.open("wb") as copied:
            shutil.copyfileobj(stream, copied)

    status = path.stat()
    found.copies[Entry(relative, status.st_size, _changed_ns(status))] = copy


def _changed_ns(status: os.stat_result) -> tuple[int, int]:
    # a replaced file may keep its size and modification time
    return status.st_mtime_ns, status.st_ctime_ns


def _unpack(path: Path, found: _Found) -> None:
    for member in found.unpacking.members(path):
        if member.is_link:
            found.links.append(member.path)
        else:
            found.copies[Entry(member.path, member.size)] = member.copy
