"""The folder of an S3 server that is kept: its keys, and one server at a time."""

from __future__ import annotations

import fcntl
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from mirnet.atomic import write_atomically
from mirnet.errors import StorageError

_FILE, _LOCK = "keys.json", "server.lock"


@dataclass(frozen=True)
class ServerKeys:
    """What a client signs its requests with."""

    access_key: str
    secret_key: str


def server_keys(folder: Path) -> ServerKeys:
    """The keys of the server in this folder, made at the first call; the file has mode 0600.

    Raises:
        StorageError: the file cannot be read or written, or others may read it.
    """
    path = folder / _FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not path.exists():
            made = ServerKeys(secrets.token_hex(10), secrets.token_urlsafe(30))
            write_atomically(path, json.dumps(asdict(made)) + "\n", mode=0o600)
        mode, text = path.stat().st_mode, path.read_text(encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{path}: {error.strerror}", transient=False) from error
    if mode & 0o077:
        raise StorageError(f"{path}: others may read it: chmod 600 {path}", transient=False)
    try:
        return ServerKeys(**json.loads(text))
    except (ValueError, TypeError) as error:
        message = f"{path}: holds no keys; remove it for new ones"
        raise StorageError(message, transient=False) from error


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder, which is made; two servers on the same data damage them.

    Raises:
        StorageError: another server has it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / _LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageError(f"{folder}: another S3 server has it", transient=False) from error
        yield
