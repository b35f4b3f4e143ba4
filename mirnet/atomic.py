"""Files that are whole or not there: written beside their place, then renamed into it.

All temporary files of the package are made here. Their writer holds a lock on them, so that those
of killed processes can be told from those of others that run, and removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".mirnet-part-"
# of unreleased versions: .mirnet-HEX.part
_PART_NAME = re.compile(rf"{re.escape(_PREFIX)}.*|\.mirnet-[0-9a-f]{{16}}\.part", re.DOTALL)
# file systems without locks
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}


def create_part(
    folder: str | Path = "", *, mode: int, dir_fd: int | None = None
) -> tuple[str, int]:
    """A new temporary file: its name and a descriptor, which marks it as in use until it closes.

    Args:
        folder: relative to ``dir_fd`` where that is given.
        mode: permissions, of which the umask is taken.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        name = f"{_PREFIX}{secrets.token_hex(8)}"
        descriptor = os.open(Path(folder, name), flags, mode, dir_fd=dir_fd)
        try:
            _lock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_nlink:
                return name, descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # removed by another process before it was locked


def is_part_name(name: str) -> bool:
    """Whether a file of this name is a temporary one, in use or left by a killed process."""
    return _PART_NAME.fullmatch(name) is not None


def remove_part(path: str | Path) -> None:
    """Remove a temporary file unless a running process writes it, or nobody can tell."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link, which no writer makes
            Path(path).unlink(missing_ok=True)
        return
    try:
        if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
            Path(path).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, operation: int) -> bool:
    """Whether the lock was taken; not where another process has it or there are no locks."""
    try:
        fcntl.flock(descriptor, operation)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    return True


@contextmanager
def replacing(path: Path, *, mode: int | None = None, keep: bool = False) -> Iterator[Path]:
    """An empty file beside ``path`` to fill; takes its place when the block ends without an error.

    Missing folders are made. An error removes the new file and leaves what stood at ``path``. The
    new file is on disk before it is in place. Temporary files that killed processes left in the
    folder are removed.

    Args:
        mode: permissions whatever the umask is; none: what the umask leaves to a new file.
        keep: a file that another process has put at ``path`` meanwhile stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    name, descriptor = create_part(path.parent, mode=0o666 if mode is None else 0o600)
    fresh = path.parent / name
    try:
        if mode is not None:
            fresh.chmod(mode)
        yield fresh
        os.fsync(descriptor)
        _place(fresh, path, keep=keep)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)
    # a folder may be written to, and not listed
    with suppress(PermissionError), os.scandir(path.parent) as entries:
        for part in [entry.path for entry in entries if is_part_name(entry.name)]:
            remove_part(part)


def _place(fresh: Path, path: Path, *, keep: bool) -> None:
    if not keep:
        fresh.replace(path)
        return
    try:
        os.link(fresh, path)
    except FileExistsError:
        fresh.unlink()
    except OSError:  # a file system without hard links
        fresh.replace(path)
    else:
        fresh.unlink()


def write_atomically(path: Path, content: str | bytes, *, mode: int | None = None) -> Path:
    """Write text (UTF-8) or bytes by :func:`replacing`; returns ``path``."""
    with replacing(path, mode=mode) as fresh:
        fresh.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
