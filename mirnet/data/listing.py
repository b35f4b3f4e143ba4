"""Listings and objects of a data set on a remote, verified by their digests.

DVC stores a folder as a listing (names and md5 of files, stored under its own md5) and one object
per content. It verifies neither on download, and writes to any path in a listing.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any

from mirnet.errors import DataError

FOLDER_DIGEST = re.compile(r"[0-9a-f]{32}\.dir")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_MAX_BYTES = 2**28
"""Maximum size of a listing: about two million files."""


@dataclass(frozen=True)
class Listed:
    path: str
    """Relative, with forward slashes; never outside of the folder."""
    md5: str


def parse_listing(content: bytes, digest: str, *, place: str) -> tuple[Listed, ...]:
    """The files of a version.

    Args:
        content: bytes of DVC's listing.
        digest: as pinned by the ``.dvc`` file, 32 hexadecimal digits and ``.dir``.
        place: origin of the bytes, for messages.

    Raises:
        DataError: the bytes do not match the digest, or a name leads out of the folder.
    """
    found = f"{hashlib.md5(content, usedforsecurity=False).hexdigest()}.dir"
    if found != digest:
        raise DataError(f"{place}: is not the pinned listing (it is {found}): damaged or changed")
    try:
        listed = tuple(_listed(entry) for entry in json.loads(content))
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{place}: not a listing of files: {error}") from error
    _refuse_collisions(listed, place)
    return listed


def _listed(entry: dict[str, Any]) -> Listed:
    path, md5 = entry["relpath"], entry["md5"]
    if not isinstance(md5, str) or not _DIGEST.fullmatch(md5):
        raise ValueError(f"the digest {md5!r}")
    if not isinstance(path, str) or not _stays_inside(path):
        raise ValueError(f"the name {path!r} leads out of the folder")
    return Listed(path, md5)


def _stays_inside(path: str) -> bool:
    # checked by the rules of Windows, where more leads out: a backslash, a drive
    if "\\" in path or PureWindowsPath(path).drive or any(ord(c) < 32 for c in path):
        return False
    return not {"", ".", ".."} & set(path.split("/"))


def _refuse_collisions(listed: Iterable[Listed], place: str) -> None:
    files: set[str] = set()
    folders: set[str] = set()
    for one in listed:
        if one.path in files:
            raise DataError(f"{place}: names {one.path!r} twice")
        files.add(one.path)
        parts = one.path.split("/")
        folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts))}
    if both := sorted(files & folders):
        raise DataError(f"{place}: {both[0]!r} is a file and a folder")


def fetch_listing(cache: Any, store: Any, digest: str) -> tuple[tuple[Listed, ...], bool]:
    """The pinned listing, downloaded to the cache if it is missing or damaged there.

    Args:
        cache: DVC's local object store.
        store: object store of the remote.

    Returns:
        Its files, and whether it came from the remote.

    Raises:
        DataError: the remote has other content under its name, or it is not a listing.
        OSError: the remote lacks it or cannot be reached.
    """
    if not discard_damaged(cache, [digest]):
        kept = Path(cache.oid_to_path(digest))
        if kept.is_file():
            return parse_listing(kept.read_bytes(), digest, place=str(kept)), False
    content, place = read_remote_listing(store, digest)
    listed = parse_listing(content, digest, place=place)
    cache.add_bytes(digest, content)
    return listed, True


def read_remote_listing(store: Any, digest: str) -> tuple[bytes, str]:
    """The bytes of a listing on a remote, unverified, and their address.

    Raises:
        DataError: it is too large to be one.
        OSError: the remote lacks it or cannot be reached.
    """
    path = store.oid_to_path(digest)
    place = store.fs.unstrip_protocol(path)
    try:
        with store.fs.open(path, "rb") as file:
            content: bytes = file.read(_MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"files of the pinned version do not exist ({place})") from error
    if len(content) > _MAX_BYTES:
        raise DataError(f"{place}: too large for a listing of files")
    return content, place


def discard_damaged(cache: Any, digests: Iterable[str]) -> list[str]:
    """Remove cache entries of these digests whose content does not match.

    Returns:
        The digests of the removed entries.
    """
    removed = []
    for digest in digests:
        path = Path(cache.oid_to_path(digest))
        if path.is_file() and _md5(path) != digest.removesuffix(".dir"):
            path.unlink()
            removed.append(digest)
    return removed


def digests(listed: Iterable[Listed]) -> list[str]:
    """Digests of the contents of these files, without duplicates."""
    return sorted({one.md5 for one in listed})


def verify_objects(root: Path, cache: Any, store: Any, listed: tuple[Listed, ...]) -> None:
    """Verify the downloaded objects against the listing; wrong ones are removed from the cache.

    Raises:
        DataError: a content does not match; names a file and its object on the remote.
    """
    damaged = discard_damaged(cache, digests(listed))
    if not damaged:
        return
    wrong = [one.path for one in listed if one.md5 in set(damaged)]
    place = store.fs.unstrip_protocol(store.oid_to_path(damaged[0]))
    raise DataError(
        f"{root}: the remote has other contents than the pinned version for {len(wrong)} of "
        f"{len(listed)} files, such as {wrong[0]} ({place}); {root} was left as it is"
    )


def refuse_links(root: Path, listed: Iterable[Listed]) -> None:
    """Refuse folders within a data set that are links, since files would be written through them.

    Raises:
        DataError: there is one; names it.
    """
    inside = root.resolve()
    for parent in sorted({str(Path(one.path).parent) for one in listed}):
        if not (inside / parent).resolve().is_relative_to(inside):
            raise DataError(f"{root / parent}: a link out of {root}; put a folder in its place")


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, partial(hashlib.md5, usedforsecurity=False)).hexdigest()
