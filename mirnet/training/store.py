"""Checkpoints of a run without Ray, on a folder or S3: whole or not there."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pyarrow
from pyarrow import fs

from mirnet.atomic import write_atomically
from mirnet.config import Settings
from mirnet.errors import StorageError, UsageError

logger = logging.getLogger(__name__)

_LATEST = "latest"
_PREFIX = "checkpoint_"
_ATTEMPTS = 20  # with pauses that grow to 20 seconds


def open_filesystem(settings: Settings) -> tuple[fs.FileSystem, str]:
    """The filesystem of ``settings.checkpoints`` and the path on it, without a scheme.

    Raises:
        UsageError: a scheme that is neither a path nor ``s3://``; names the setting.
    """
    uri = settings.checkpoints
    if uri.startswith("s3://"):
        return PatientS3(settings.s3_endpoint_url), uri.removeprefix("s3://").rstrip("/")
    if "://" in uri:
        raise UsageError(f"MIRNET_STORAGE_URI {uri}: a path or s3://bucket/prefix is needed")
    return fs.LocalFileSystem(), str(Path(uri).resolve())


class PatientS3(fs.S3FileSystem):  # type: ignore[misc]
    """S3 whose refusals for a while are waited out, two to three minutes of them.

    pyarrow's own pickle would drop timeouts and patience on the way to a worker. Credentials
    are those of the process that it is used in.
    """

    def __init__(self, endpoint: str | None) -> None:
        self._endpoint = endpoint
        scheme, _, host = (endpoint or "").rpartition("://")
        super().__init__(
            endpoint_override=host or None,
            scheme=scheme or "https",
            region="us-east-1" if endpoint else None,
            allow_bucket_creation=False,
            connect_timeout=10,
            request_timeout=60,
            retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=_ATTEMPTS),
        )

    def __reduce__(self) -> tuple[type[PatientS3], tuple[str | None]]:
        return PatientS3, (self._endpoint,)


def uri_of(filesystem: fs.FileSystem, path: str) -> str:
    """A path with its scheme, for messages and results."""
    return path if isinstance(filesystem, fs.LocalFileSystem) else f"s3://{path}"


@contextmanager
def storage_errors(path: str) -> Iterator[None]:
    """Refusals of a store as StorageError that names the path."""
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        raise StorageError(f"checkpoint store at {path}: {error}") from error


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


class CheckpointStore:
    """Numbered checkpoint folders and a pointer to the last whole one, written last."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._fs = filesystem
        self._path = PurePosixPath(path)

    @property
    def uri(self) -> str:
        """Where the checkpoints are, for messages and results."""
        return uri_of(self._fs, str(self._path))

    def put(self, folder: Path) -> None:
        """Move a local folder here as the newest checkpoint, then drop the one before.

        Raises:
            StorageError: the store refuses; names its address.
        """
        previous = self._latest_name()
        number = int(previous.removeprefix(_PREFIX)) + 1 if previous else 0
        name = f"{_PREFIX}{number:06d}"
        with storage_errors(self.uri):
            try:
                self._fs.create_dir(str(self._path / name), recursive=True)
                fs.copy_files(str(folder), str(self._path / name), fs.LocalFileSystem(), self._fs)
                self._point_to(name)
            except OSError:
                self._remove(name)  # of a full disk it would keep the rest
                raise
            finally:
                shutil.rmtree(folder)
            if previous:
                self._remove(previous)

    def _remove(self, name: str) -> None:
        """Drop a checkpoint folder that nothing points to; what stays is only in the way."""
        try:
            self._fs.delete_dir(str(self._path / name))
        except OSError as error:
            logger.warning("%s/%s stays: %s", self.uri, name, error)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """A local copy of the newest whole checkpoint, or None."""
        name = self._latest_name()
        if name is None:
            yield None
            return
        with tempfile.TemporaryDirectory() as folder:
            fs.copy_files(str(self._path / name), folder, self._fs, fs.LocalFileSystem())
            yield Path(folder)

    def _latest_name(self) -> str | None:
        with storage_errors(self.uri):
            return read_text(self._fs, str(self._path / _LATEST))

    def _point_to(self, name: str) -> None:
        write_text(self._fs, str(self._path / _LATEST), name)
