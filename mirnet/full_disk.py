"""A full disk or a used-up quota in one line, whichever library met it."""

from __future__ import annotations

import errno
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mirnet.errors import MirnetError

_LITTLE = 64 * 2**20
_NUMBERS = {errno.ENOSPC, errno.EDQUOT}
# SQLite, and libraries in C++ and Rust, have the number in their text or not at all
_TEXTS = ("No space left on device", "disk is full", "Disk quota exceeded")


class DiskFull(MirnetError):
    """There was no space to write a file. Exit code 1."""


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Convert errors that a full disk has caused to :class:`DiskFull`, but none of our own."""
    try:
        yield
    except MirnetError:
        raise
    except Exception as error:
        if (full := disk_full(error)) is None:
            raise
        raise full from error


def require_room(folder: Path, mib: int) -> None:
    """Refuse to begin what cannot end: programs of others have no line for a full disk.

    Raises:
        DiskFull: fewer MiB are free.
    """
    place = _existing(folder)
    free = _free(place) / 2**20
    if free < mib:
        raise DiskFull(f"{folder}: {free:.0f} MiB free in {place.resolve()}, {mib} are needed")


def disk_full(error: BaseException) -> DiskFull | None:
    """The error to show in place of one that a full disk has caused; none for any other."""
    chain = list(_chain(error))
    if not any(_is_full(one) for one in chain):
        return None
    files = [one.filename2 or one.filename for one in chain if isinstance(one, OSError)]
    named = [Path(str(name)) for name in files if name is not None]
    where = f"{named[0]}: " if named else ""
    looked = [named[0].parent] if named else [Path(), Path(tempfile.gettempdir())]
    free, place = min((_free(folder), folder.resolve()) for folder in map(_existing, looked))
    # without a name only a disk that is nearly full can be the one
    room = f" ({free / 2**20:.1f} MiB free in {place})" if named or free < _LITTLE else ""
    return DiskFull(
        f"{where}no space left on the disk{room}: make room and "
        "repeat the command, which continues with what is complete"
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes, and those in the handling of which it was raised."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        one = todo.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [other for other in (one.__cause__, one.__context__) if other is not None]
        # of Ray, which carries the error of its worker
        if isinstance(other := getattr(one, "cause", None), BaseException):
            todo.append(other)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _NUMBERS:
        return True
    return any(text in str(error) for text in _TEXTS)


def _existing(folder: Path) -> Path:
    return next(place for place in (folder, *folder.parents, Path()) if place.is_dir())


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free
