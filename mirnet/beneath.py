"""Access to files below a folder without following links below it.

Each name on the way is opened relative to the open folder before it (``openat`` with
``O_NOFOLLOW``), so that a link created in the meantime is not followed either.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# a pipe without a writer does not block, a terminal does not become ours
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class LinkInTheWay(OSError):
    """A link where links are not followed; ``filename`` is the link."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.ELOOP, "is a link, and links are not followed", str(path))


class NotRegular(OSError):
    """A pipe, socket, device or folder where a file is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "is no regular file", str(path))


@dataclass(frozen=True)
class Beneath:
    """A folder below ``base`` that need not exist yet.

    Links in the path of ``base`` itself are followed.
    """

    base: Path
    inner: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """For messages, and for uses where links are harmless."""
        return self.base.joinpath(*self.inner)

    def child(self, name: str) -> Beneath:
        """A folder below this one; the name may have several parts."""
        return Beneath(self.base, (*self.inner, *PurePosixPath(name).parts))

    @contextmanager
    def open(self, *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder.

        Args:
            make: create missing folders.

        Raises:
            LinkInTheWay: a name below ``base`` is a link.
            OSError: it is missing, no folder, or refused.
        """
        if make:
            self.base.mkdir(parents=True, exist_ok=True)
        folder = os.open(self.base, _FOLDER)
        try:
            path = self.base
            for name in self.inner:
                path /= name
                inner = _step(folder, name, path, make=make)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def open_file(self, name: str) -> int:
        """A descriptor to read a regular file of this folder.

        Raises:
            LinkInTheWay: it is a link, or a folder on the way is.
            NotRegular: it is no file.
            OSError: it is missing or refused.
        """
        with self.open() as folder:
            try:
                return open_regular(name, folder, os.O_NOFOLLOW)
            except OSError as error:
                raise _explained(error, folder, name, self.path / name) from error


def open_regular(path: str | Path, folder: int | None = None, flags: int = 0) -> int:
    """A descriptor to read a regular file; a pipe does not block.

    Args:
        folder: descriptor of the folder that the path is relative to.
        flags: further ones for ``os.open``.

    Raises:
        NotRegular: a pipe, socket, device or folder.
        OSError: it is missing or refused.
    """
    file = os.open(path, _READ | flags, dir_fd=folder)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotRegular(Path(path))
    return file


def _step(folder: int, name: str, path: Path, *, make: bool) -> int:
    try:
        return os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as error:
        raise _explained(error, folder, name, path) from error
    with suppress(FileExistsError):  # created in the meantime; if it is a link, see below
        os.mkdir(name, dir_fd=folder)
    return _step(folder, name, path, make=False)


def _explained(error: OSError, folder: int, name: str, path: Path) -> OSError:
    """The error of ``open`` for a link differs between systems."""
    try:
        is_link = stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return error
    return LinkInTheWay(path) if is_link else error
