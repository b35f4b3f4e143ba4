"""Source and target in each other, however their names are written."""

from __future__ import annotations

from pathlib import Path

from mirnet.errors import UsageError
from mirnet.storage.places import Place, is_s3
from mirnet.storage.store import Store


def own_prefix(source: Place, target: Store, single: str | None, *, named: str) -> str | None:
    """Below which keys of the source its target lies; none where it lies elsewhere.

    Args:
        single: the name of the output where one picture goes to one file.
        named: the places as the person wrote them.

    Raises:
        UsageError: they are the same place, or the source lies inside the target.
    """
    if single is not None:
        if source.only_key is not None and _same_file(source, target, single):
            raise UsageError(f"{named}: the target must be another place than the source")
        return None
    inside = _key_below(target, source.store)
    remedy = "name the file that is to be written" if source.only_key else "choose another target"
    if inside == "":
        raise UsageError(f"{named}: the target must be another place than the source; {remedy}")
    if _key_below(source.store, target) is not None:
        raise UsageError(f"{named}: the source lies inside the target, among the outputs; {remedy}")
    return None if inside is None else f"{inside}/"


def _key_below(inner: Store, outer: Store) -> str | None:
    """The key of a place in another, empty where they are the same; none where it is not in it.

    By name in a bucket: ``in2`` is not inside ``in``. In folders also by what the system takes
    for the same folder: not all file systems know case, and one may be mounted twice.
    """
    if is_s3(inner.uri) != is_s3(outer.uri):
        return None
    if is_s3(inner.uri):
        if inner.uri == outer.uri:
            return ""
        begin = f"{outer.uri}/"
        return inner.uri.removeprefix(begin) if inner.uri.startswith(begin) else None
    path, folder = Path(inner.uri), Path(outer.uri)
    for parent in (path, *path.parents):
        if _same(parent, folder):
            key = path.relative_to(parent).as_posix()
            return "" if key == "." else key
    return None


def _same_file(source: Place, target: Store, single: str) -> bool:
    ours, theirs = source.store.address(source.only_key or ""), target.address(single)
    return ours == theirs or (not is_s3(ours) and _same(Path(ours), Path(theirs)))


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))
