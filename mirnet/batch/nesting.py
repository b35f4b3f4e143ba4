"""Detection of nested source and target, independent of spelling."""

from __future__ import annotations

from pathlib import Path

from mirnet.errors import UsageError
from mirnet.storage.places import Place, is_s3
from mirnet.storage.store import Store


def own_prefix(source: Place, target: Store, single: str | None, *, named: str) -> str | None:
    """The prefix of the target within the source; none if it is elsewhere.

    Args:
        single: the name of the output if one image goes to one file.
        named: source and target as written by the user.

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
    """The key of one place within another, empty if they are the same; none if it is not in it.

    By name in a bucket: ``in2`` is not inside ``in``. In folders also by identity in the file
    system, which may be case-insensitive or mounted twice.
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
