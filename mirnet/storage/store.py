"""One protocol over object stores and local folders: list, get, conditional put, copy.

A store has a base (``s3://bucket/prefix`` or a folder); keys are relative to it, with ``/``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Final

from mirnet.errors import StorageError, UsageError

# problems of what a listing names and a store does not read
LINK: Final = "link"
SPECIAL: Final = "special"
OWN: Final = "own"


class TransientStorageError(StorageError):
    """The store did not answer well in spite of retries; another object may still work."""


class ObjectMissing(StorageError):
    """There is no object with this key (any more)."""


class NoSuchPlace(StorageError):
    """A source, or a bucket, that a person named and that is not there. Exit code 2."""

    exit_code = UsageError.exit_code


class KeyRefused(StorageError):
    """This store cannot hold an object with this name; others are not affected."""


class ObjectRefused(StorageError):
    """The store does not hand out this one: archived, encrypted, or not readable for us."""


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One entry of a listing.

    ``version`` changes whenever the object's bytes are written again: the ETag on S3, size and
    modification time (ns) of a local file. ``modified`` is in seconds since the epoch, by the
    clock of the store. ``problem`` is set where the object can be named but not read.
    """

    key: str
    size: int
    version: str
    modified: float
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """An object's bytes with the version that they belong to."""

    data: bytes
    version: str
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Head:
    """What a store knows of an object without sending it.

    ``age_s``: since the last write, by the store's own clock; rather too little than too much.
    """

    size: int
    version: str
    metadata: Mapping[str, str]
    age_s: float


class Store(ABC):
    """What the batch protocol needs of a place. All methods are safe to call from threads.

    Raises:
        ObjectMissing, KeyRefused, ObjectRefused, TransientStorageError: about one object.
        StorageError: anything else: credentials, permission, bucket, disk. Names the place.
    """

    uri: str

    @abstractmethod
    def check(self) -> None:
        """Find out now, with one request, whether this place can be listed."""

    def is_there(self) -> bool:
        """Whether this place is known to exist although nothing lies in it."""
        return True

    @abstractmethod
    def address(self, key: str) -> str:
        """The full name of an object, for people and manifests."""

    @abstractmethod
    def child(self, name: str) -> Store:
        """The store below ``name``."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix``, page by page; in no promised order."""

    @abstractmethod
    def head(self, key: str) -> Head | None:
        """Version and metadata, or none where there is no such object."""

    @abstractmethod
    def get(self, key: str) -> Blob:
        """The whole object."""

    @abstractmethod
    def read_into(self, key: str, file: IO[bytes]) -> None:
        """The object's bytes into an open file, piece by piece."""

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
        """Write an object whole and give its version.

        With ``absent`` only where there is none, with ``replaces`` only over that version;
        none is returned when the condition does not hold and nothing was written.
        """

    @abstractmethod
    def delete(self, key: str) -> None:
        """Remove an object; no error where there is none."""

    @abstractmethod
    def copy_from(
        self, source: Store, key: str, target_key: str, *, metadata: Mapping[str, str]
    ) -> None:
        """Copy an object of another store without holding it in memory."""

    def sweep(self) -> None:
        """Remove what killed writers left half-written; only while no other writer is at work."""
        return

    def put_if_absent(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
    ) -> bool:
        """Write an object whole, unless there is one already; whether it was written."""
        version = self.put(key, data, content_type=content_type, metadata=metadata, absent=True)
        return version is not None
