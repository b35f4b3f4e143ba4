"""One protocol over object stores and local folders: list, get, conditional put, copy.

A store has a base (``s3://bucket/prefix`` or a folder); keys are relative to it, with ``/``.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from mirnet.config import Settings
from mirnet.errors import StorageError, UsageError

# problems of what a listing names and a store does not read
LINK: Final = "link"
SPECIAL: Final = "special"
OWN: Final = "own"
_NOT_S3 = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


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


@dataclass(frozen=True, slots=True)
class Place:
    """A source or target as people write it: a store, and the one key if it names one object."""

    store: Store
    only_key: str | None = None


def is_s3(uri: str) -> bool:
    """Whether this names an S3 bucket."""
    return uri.startswith("s3://")


def open_store(
    uri: str, settings: Settings, *, bookkeeping: str | None = None, follow_links: bool = False
) -> Store:
    """The store of a bucket, prefix or folder. Makes no request and no folder.

    Args:
        bookkeeping: where the metadata of local files go, if not into the folder itself.
        follow_links: read through links below a folder.

    Raises:
        UsageError: not a form that we know.
    """
    if is_s3(uri):
        from mirnet.batch.s3 import S3Store

        return S3Store.from_uri(uri, settings)
    from mirnet.batch.local import LocalStore

    return LocalStore(
        local_path(uri),
        bookkeeping=local_path(bookkeeping) if bookkeeping else None,
        follow_links=follow_links,
    )


def local_path(uri: str) -> Path:
    """One name for a file or folder, however it is written and whatever links lead to it.

    Raises:
        UsageError: not a form that we know.
    """
    if uri in ("", "-"):
        raise UsageError(f"{uri!r}: name a file or folder; there is no reading from a pipe")
    if _NOT_S3.match(uri):
        raise UsageError(f"{uri}: write a folder, a file or s3://bucket/prefix")
    try:
        uri.encode()
        path = Path(uri).expanduser().resolve()
        with suppress(FileNotFoundError, NotADirectoryError):
            path.lstat()
    except UnicodeEncodeError as error:
        raise UsageError(f"{uri!a}: the name is not UTF-8; rename it") from error
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a name too long
        raise UsageError(f"{uri}: {getattr(error, 'strerror', None) or error}") from error
    return path


def open_source(
    uri: str, settings: Settings, *, follow_links: bool = False, apart: str | None = None
) -> Place:
    """The place to read from: a folder, a prefix, one file or one object.

    Args:
        follow_links: read through links below a folder.
        apart: a target, not to be read where links lead to it.

    Raises:
        UsageError: not a form that we know.
        NoSuchPlace: there is no such file or folder, or no such bucket.
        StorageError: it cannot be listed.
    """
    if is_s3(uri):
        return _open_s3_source(uri, settings)
    from mirnet.batch.local import LocalStore

    path = local_path(uri)
    if path.is_file():
        # named by a person: a link at its end was followed on purpose
        named = Path(uri).expanduser().absolute()
        folder = local_path(str(named.parent))
        return Place(LocalStore(folder, follow_links=True), named.name)
    never = local_path(apart) if apart and not is_s3(apart) else None
    if not path.exists():
        link = f"; it is a link to {path}" if Path(uri).expanduser().is_symlink() else ""
        raise NoSuchPlace(f"{uri}: no such file or folder{link}", transient=False)
    store = LocalStore(path, follow_links=follow_links, apart=never)
    store.check()
    return Place(store)


def _open_s3_source(uri: str, settings: Settings) -> Place:
    parent, _, name = uri.rpartition("/")
    looks_like_object = parent != "s3:/" and "." in name
    if looks_like_object:
        folder = open_store(parent, settings)
        folder.check()
        if folder.head(name) is not None:
            return Place(folder, name)
    store = open_store(uri, settings)
    store.check()
    return Place(store)
