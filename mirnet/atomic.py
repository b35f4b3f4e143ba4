"""Files that are whole or not there: written beside their place, then renamed into it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """An empty file beside ``path`` to fill; takes its place when the block ends without an error.

    Missing folders are made. An error removes the new file and leaves what stood at ``path``.

    Args:
        mode: permissions whatever the umask is; none: what the umask leaves to a new file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.parent / f".mirnet-{secrets.token_hex(8)}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    os.close(os.open(fresh, flags, 0o666 if mode is None else 0o600))
    try:
        if mode is not None:
            fresh.chmod(mode)
        yield fresh
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def write_atomically(path: Path, content: str | bytes, *, mode: int | None = None) -> Path:
    """Write text (UTF-8) or bytes, on disk before it is in place; returns ``path``.

    ``mode`` as in :func:`replacing`.
    """
    data = content.encode() if isinstance(content, str) else content
    with replacing(path, mode=mode) as fresh, fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return path
