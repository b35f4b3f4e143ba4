"""From what people write to a store: buckets and prefixes, folders, single images."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mirnet.config import Settings, refuse_credentials
from mirnet.errors import UsageError
from mirnet.storage.local import LocalStore
from mirnet.storage.store import NoSuchPlace, Store

_NOT_S3 = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


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
    refuse_credentials(uri)
    if is_s3(uri):
        from mirnet.storage.s3 import S3Store

        return S3Store.from_uri(uri, settings)
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
    refuse_credentials(uri)
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
    refuse_credentials(uri)
    if is_s3(uri):
        return _open_s3_source(uri, settings)
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
    if looks_like_object and not store.is_there():
        raise NoSuchPlace(f"{uri}: no such object, and nothing lies below {uri}/", transient=False)
    return Place(store)
