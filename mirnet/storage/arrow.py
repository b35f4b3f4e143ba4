"""Filesystems of pyarrow, which Ray Train takes: for checkpoints, packs and jobs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow
from pyarrow import fs

from mirnet.atomic import write_atomically
from mirnet.config import Settings, name_variables
from mirnet.errors import StorageError, UsageError

if TYPE_CHECKING:
    from mirnet.storage.s3session import S3Connection

_ATTEMPTS = 20  # with pauses that grow to 20 seconds
# at least: to put a large checkpoint together takes a store long
_CONNECT_S, _REQUEST_S = 10.0, 60.0


def open_filesystem(settings: Settings, *, attempts: int = _ATTEMPTS) -> tuple[fs.FileSystem, str]:
    """The filesystem of ``settings.checkpoints`` and the path on it, without a scheme.

    Args:
        attempts: how often S3 is asked; fewer for a caller with a patience of its own, as no signal
            is heard meanwhile.

    Raises:
        UsageError: a scheme that is neither a path nor ``s3://``; names the setting.
        StorageError: the AWS profile is not there.
    """
    uri = settings.checkpoints
    if uri.startswith("s3://"):
        from mirnet.storage.s3session import connection

        store = PatientS3(connection(uri, settings), attempts)
        return store, uri.removeprefix("s3://").rstrip("/")
    if "://" in uri:
        raise UsageError(f"MIRNET_STORAGE_URI {uri}: a path or s3://bucket/prefix is needed")
    return fs.LocalFileSystem(), str(Path(uri).resolve())


class PatientS3(fs.S3FileSystem):  # type: ignore[misc]
    """S3 whose refusals for a while are waited out: by default two to three minutes of them.

    pyarrow's own pickle would drop timeouts and patience on the way to a worker. Credentials
    are those of the process that it is used in.
    """

    def __init__(self, where: S3Connection, attempts: int = _ATTEMPTS) -> None:
        self._where, self._attempts = where, attempts
        scheme, _, host = (where.endpoint_url or "").rpartition("://")
        super().__init__(
            endpoint_override=host or None,
            scheme=scheme or "https",
            # without an endpoint the SDK also asks the machine that it runs on
            region=where.region or (where.DEFAULT_REGION if where.endpoint_url else None),
            allow_bucket_creation=False,
            connect_timeout=max(_CONNECT_S, where.connect_timeout_s),
            request_timeout=max(_REQUEST_S, where.read_timeout_s),
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        )

    def __reduce__(self) -> tuple[type[PatientS3], tuple[S3Connection, int]]:
        return PatientS3, (self._where, self._attempts)


def uri_of(filesystem: fs.FileSystem, path: str) -> str:
    """A path with its scheme, for messages and results."""
    return path if isinstance(filesystem, fs.LocalFileSystem) else f"s3://{path}"


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Refusals of a store as StorageError that names the path."""
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise StorageError(f"checkpoint store at {path}: {name_variables(str(error))}") from error


def read_text(filesystem: fs.FileSystem, path: str) -> str | None:
    """A small file, or None where there is none."""
    if filesystem.get_file_info(path).type == fs.FileType.NotFound:
        return None
    with filesystem.open_input_stream(path) as stream:
        return str(stream.read().decode())


def write_text(filesystem: fs.FileSystem, path: str, text: str) -> None:
    """A small file, whole or not there; missing folders are made."""
    if isinstance(filesystem, fs.LocalFileSystem):
        write_atomically(Path(path), text)
        return
    with filesystem.open_output_stream(path) as stream:  # S3 puts are atomic
        stream.write(text.encode())
