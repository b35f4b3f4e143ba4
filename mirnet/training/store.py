"""Checkpoints of a run without Ray, in a folder or on S3, written atomically."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pyarrow import fs

from mirnet.storage.arrow import read_text, storage_errors, uri_of, write_text

logger = logging.getLogger(__name__)

_LATEST = "latest"
_PREFIX = "checkpoint_"


class CheckpointStore:
    """Numbered checkpoint folders and a pointer to the last complete one, written last."""

    def __init__(self, filesystem: fs.FileSystem, path: str) -> None:
        self._fs = filesystem
        self._path = PurePosixPath(path)

    @property
    def uri(self) -> str:
        """Address of the checkpoints, for messages and results."""
        return uri_of(self._fs, str(self._path))

    def put(self, folder: Path) -> None:
        """Move a local folder to the store as the newest checkpoint, then remove the one before.

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
                write_text(self._fs, str(self._path / _LATEST), name)
            except OSError:
                self._remove(name)  # otherwise a full disk would keep the partial folder
                raise
            finally:
                shutil.rmtree(folder)
            if previous:
                self._remove(previous)

    def _remove(self, name: str) -> None:
        """Remove an unreferenced checkpoint folder; a failure is harmless."""
        try:
            self._fs.delete_dir(str(self._path / name))
        except OSError as error:
            logger.warning("%s/%s stays: %s", self.uri, name, error)

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """A local copy of the newest complete checkpoint, or None."""
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
