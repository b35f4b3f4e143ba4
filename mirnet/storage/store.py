"""One protocol over object stores and local folders: list, get, conditional put, copy.

A store has a base (``s3://bucket/prefix`` or a folder); keys are relative to it, with ``/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Final

from mirnet.errors import StorageError, UsageError

# problems of listed objects that a store does not read
LINK: Final = "link"
SPECIAL: Final = "special"
OWN: Final = "own"


class TransientStorageError(StorageError):
    """The store failed in spite of retries; another object may still work."""


class ObjectMissing(StorageError):
    """No object with this key, or no longer."""


class NoSuchPlace(StorageError):
    """A source or bucket that does not exist. Exit code 2."""

    exit_code = UsageError.exit_code


class ObjectChanged(StorageError):
    """The object is no longer the version that was asked for."""


class KeyRefused(StorageError):
    """This store cannot have an object with this name; others are not affected."""


class ObjectRefused(StorageError):
    """The store refuses this object: archived, encrypted, or no read permission."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One entry of a listing.

    ``version`` changes whenever the object's bytes are written again: the ETag on S3, size and
    modification time (ns) of a local file. ``modified`` is in seconds since the epoch, by the
    clock of the store. ``problem`` is set if the object is listed but cannot be read.
    """

    key: str
    size: int
    version: str
    modified: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes with their version. ``content_type``: empty where files have none."""

    data: bytes
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """Version and metadata of an object, without its bytes.

    ``age_s``: since the last write, by the store's own clock; a lower bound. Negative if that clock
    was set back since then.
    """

    size: int
    version: str
    metadata: Mapping[str, str]
    age_s: float


class Store(ABC):
    """The protocol of stores. All methods are thread-safe.

    Raises:
        ObjectMissing, ObjectChanged, KeyRefused, ObjectRefused, TransientStorageError: about one
            object.
        StorageError: other failures: credentials, permission, bucket, disk. Names the place.
    """

    uri: str

    @abstractmethod
    def check(self) -> None:
        """Check with one request that this place can be listed."""

    def is_there(self) -> bool:
        """Whether this place is known to exist although it is empty."""
        return True

    @abstractmethod
    def address(self, key: str) -> str:
        """The full name of an object, for messages and manifests."""

    @abstractmethod
    def child(self, name: str) -> Store:
        """The store below ``name``."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, page by page; in no particular order."""

    @abstractmethod
    def head(self, key: str) -> Head | None:
        """Version and metadata, or none if there is no such object."""

    @abstractmethod
    def get(self, key: str) -> Blob:
        """The whole object."""

    @abstractmethod
    def read_into(self, key: str, file: IO[bytes], *, version: str | None = None) -> None:
        """The object's bytes into an open file, piece by piece.

        Raises:
            ObjectChanged: it is not, or does not stay, the given version.
        """

    @abstractmethod
    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        replaces: str | None = None,
        absent: bool = False,
    ) -> str | None:
        """Write an object atomically; returns its version.

        With ``absent`` only if it does not exist, with ``replaces`` only over that version;
        returns none, without writing, if the condition does not hold.
        """

    def ignored_condition(self, key: str, data: bytes) -> str | None:  # noqa: ARG002
        """The condition of :meth:`put` that this store ignores; none as it should be.

        Args:
            key: of an object that exists.
            data: its bytes; written again where a condition is ignored.
        """
        return None

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error if it does not exist."""

    @abstractmethod
    def copy_from(
        self,
        source: Store,
        key: str,
        target_key: str,
        *,
        metadata: Mapping[str, str],
        version: str | None = None,
    ) -> None:
        """Copy an object of another store without loading it into memory, with its content type.

        Args:
            version: the one to copy; whichever is there if none.

        Raises:
            ObjectChanged: it is another version.
        """

    def sweep(self) -> None:
        """Remove partial files of killed writers; only while there is no other writer."""
        return

    def put_if_absent(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write an object atomically unless it exists; returns whether it was written."""
        version = self.put(key, data, content_type=content_type, metadata=metadata, absent=True)
        return version is not None
