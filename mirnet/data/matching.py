"""Which files of a source are pairs: by folders, by file names, or as a person says.

Never by order: one missing file would shift every pair after it.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath

from mirnet.data.layout import EVAL_SPLIT, IMAGE_SUFFIXES, TRAIN_SPLIT
from mirnet.data.naming import (
    READINGS,
    Side,
    common_name,
    read_folder,
    role_of,
    side_of_file,
    side_of_whole,
)
from mirnet.data.sources import Entry
from mirnet.errors import DataError

_NAMED = 5


@dataclass(frozen=True)
class Patterns:
    """How a person names the sides: a folder, or a glob of which ``*`` is the name of the pair."""

    low: str
    high: str


@dataclass(frozen=True)
class PlannedPair:
    """Two entries of a source and what they are called here."""

    split: str
    name: str
    low: Entry
    high: Entry


@dataclass(frozen=True)
class Plan:
    """What an import will do."""

    pairs: tuple[PlannedPair, ...]
    unpaired: tuple[PurePosixPath, ...]
    ignored: tuple[PurePosixPath, ...]
    """Files that are no images of a side."""
    splits: tuple[tuple[str, str], ...] = ()
    """Folder of the source, ``.`` for its root, and the split that it becomes."""
    assumed: bool = False
    """Sides by convention (A and B), not by a word for dark and bright: look at the pictures."""
    links: tuple[PurePosixPath, ...] = ()
    """Not followed."""


@dataclass(frozen=True)
class Placed:
    """An entry with its side, and its name below the folder of its side."""

    entry: Entry
    side: Side
    name: str
    group: tuple[str, ...]
    """Folders above, without the one that says the split."""
    split: str | None
    """The word for it, as the source has it: train, our485, Val."""
    folder: tuple[str, ...]
    """Of the side."""


Bucket = tuple[tuple[str, ...], str | None]


def plan_import(
    entries: Iterable[Entry],
    *,
    only: str | None,
    name: str,
    patterns: Patterns | None = None,
    merge: bool = False,
) -> Plan:
    """Match entries to pairs by name.

    Args:
        entries: Files of the source.
        only: Part of the path that entries must have.
        name: Of the source, for messages.
        patterns: How the sides are called, where their names do not say it.
        merge: Take several sets as one; the folder of each is put before the names.

    Raises:
        DataError: no pairs, or ambiguous folders or names; says what was seen.
    """
    listed = sorted(entries, key=lambda entry: entry.path)
    images = [
        entry
        for entry in listed
        if entry.path.suffix.lower() in IMAGE_SUFFIXES
        and (not only or only.casefold() in str(entry.path).casefold())
    ]
    problem: DataError | None = None
    for way in _ways(images, patterns):
        placed = [found for entry in images if (found := way.place(entry)) is not None]
        try:
            matched = _match_all(placed, name)
        except DataError as error:
            problem = problem or error
            continue
        if any(pairs for pairs, _ in matched.values()):
            break
    else:
        raise problem or DataError(f"{name}: no pairs in it; {_seen(listed, images, patterns)}")
    splits = _splits(matched, name, merge=merge)
    pairs = [pair for bucket in splits for pair in _named(matched[bucket][0], bucket, splits)]
    names = sorted(f"{pair.split}/{pair.name}" for pair in pairs)
    twice = [one for one, other in pairwise(names) if one == other]
    if twice:
        raise DataError(f"{name}: names that become the same: {some(twice)}")
    taken = {found.entry.path for found in placed}
    return Plan(
        pairs=tuple(pairs),
        unpaired=tuple(sorted(path for _, left in matched.values() for path in left)),
        ignored=tuple(entry.path for entry in listed if entry.path not in taken),
        splits=tuple((_folder_of(bucket), split) for bucket, split in splits.items()),
        assumed=way.assumed,
    )


def some(names: Iterable[object]) -> str:
    """The first few, for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


@dataclass(frozen=True)
class _Way:
    """Where an entry belongs; none: nowhere."""

    place: Callable[[Entry], Placed | None]
    assumed: bool = False
    """The sides, by convention."""


def _ways(images: Sequence[Entry], patterns: Patterns | None) -> Iterator[_Way]:
    """Surest first; the first by which there are pairs counts."""
    if patterns is not None:
        sides: dict[Side, re.Pattern[str]] = {
            "low": _translate(patterns.low),
            "high": _translate(patterns.high),
        }
        yield _Way(partial(_by_pattern, sides=sides))
        return
    yield _Way(_by_inner_folder)
    yield _Way(_by_outer_folder)
    yield _Way(_by_longer_folder)
    yield _Way(_by_file)
    yield _Way(_by_whole_file)
    yield _Way(_by_letter, assumed=True)
    named = {side for entry in images if (side := side_of_file(entry.path.stem))}
    if len(named) == 1:  # 1.png and 1_gt.png
        rest: Side = "high" if named == {"low"} else "low"
        yield _Way(partial(_by_file, rest=rest), assumed=True)


def _by_inner_folder(entry: Entry) -> Placed | None:
    return _by_folder(entry, inner=True)


def _by_outer_folder(entry: Entry) -> Placed | None:
    return _by_folder(entry, inner=False)


def _by_longer_folder(entry: Entry) -> Placed | None:
    """``LOL_low/1.png`` and ``LOL_normal/1.png``."""
    return _by_folder(entry, inner=True, with_rest=True)


def _by_letter(entry: Entry) -> Placed | None:
    """``trainA/1.png`` and ``trainB/1.png``."""
    return _by_folder(entry, inner=True, letters=True)


def _by_folder(entry: Entry, *, inner: bool, **reading: bool) -> Placed | None:
    parts = entry.path.parts
    depths = range(len(parts) - 1)
    for depth in reversed(depths) if inner else depths:
        name = read_folder(parts[depth], **reading)
        if name.side:
            above = parts[:depth] + ((name.rest,) if name.rest else ())
            folder = parts[: depth + 1]
            return _placed(entry, name.side, name.split, above, parts[depth + 1 :], folder)
    return None


def _by_file(entry: Entry, rest: Side | None = None) -> Placed | None:
    """``1_low.png`` and ``1_high.png``; ``rest``: the side of files without a word."""
    side = side_of_file(entry.path.stem) or rest
    parts = entry.path.parts
    return _placed(entry, side, None, parts[:-1], parts[-1:], ()) if side else None


def _by_whole_file(entry: Entry) -> Placed | None:
    """``1/low.png`` and ``1/high.png``."""
    side = side_of_whole(entry.path.stem)
    if side is None or len(entry.path.parts) < 2:
        return None
    *above, folder, _ = entry.path.parts
    return _placed(entry, side, None, tuple(above), (folder + entry.path.suffix,), ())


def _by_pattern(entry: Entry, sides: dict[Side, re.Pattern[str]]) -> Placed | None:
    for side, pattern in sides.items():
        found = pattern.fullmatch(str(entry.path))
        if found:
            above, *rest = found.groups()
            inner = PurePosixPath("/".join(part for part in rest if part))
            if inner.suffix.lower() != entry.path.suffix.lower():
                inner = PurePosixPath(f"{inner}{entry.path.suffix}")
            return _placed(entry, side, None, PurePosixPath(above or "").parts, inner.parts, ())
    return None


def _translate(pattern: str) -> re.Pattern[str]:
    """A glob as an expression that tells what comes before it and what its wildcards stand for."""
    if not re.search(r"[*?\[]", pattern):
        pattern = f"{pattern.strip('/')}/**"
    parts = re.split(r"(\*\*|\*|\?|\[[^]]*\])", pattern)
    kinds = {"**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
    inner = "".join(
        kinds.get(part) or (part.replace("[!", "[^") if part[:1] == "[" else re.escape(part))
        for part in parts
    )
    return re.compile(f"(?:(.*)/)?{inner}", re.IGNORECASE)


def _placed(
    entry: Entry,
    side: Side,
    split: str | None,
    above: tuple[str, ...],
    below: tuple[str, ...],
    folder: tuple[str, ...],
) -> Placed:
    """With the folder that says the split taken out, beside the side, above or below it."""
    if split is None and len(below) > 1 and role_of(below[0]):
        split, below = below[0], below[1:]
    depths = [d for d in reversed(range(len(above))) if role_of(above[d])]
    if split is None and depths:
        split = above[depths[0]]
        above = above[: depths[0]] + above[depths[0] + 1 :]
    name = unicodedata.normalize("NFC", "-".join(below))
    return Placed(entry, side, name, above, split, folder)


Matched = dict[Bucket, tuple[list[PlannedPair], list[PurePosixPath]]]


def _match_all(placed: Sequence[Placed], name: str) -> Matched:
    buckets: dict[Bucket, dict[Side, list[Placed]]] = {}
    for found in placed:
        sides = buckets.setdefault((found.group, found.split), {"low": [], "high": []})
        sides[found.side].append(found)
    return {bucket: _match(sides, name) for bucket, sides in buckets.items()}


def _match(
    sides: dict[Side, list[Placed]], name: str
) -> tuple[list[PlannedPair], list[PurePosixPath]]:
    """Pairs by the strictest reading of the names that finds the most."""
    for side, found in sides.items():
        folders = sorted({"/".join(one.folder) for one in found})
        if len(folders) > 1 and all(sides.values()):
            raise DataError(
                f"{name}: several folders could be {side}: {', '.join(folders)}; "
                "name the sides with --low FOLDER and --high FOLDER"
            )
    best: tuple[dict[str, Placed], dict[str, Placed]] = ({}, {})
    most = -1
    # words such as low and normal, and zeros before numbers, are dropped only where that finds more
    for key_of in READINGS:
        low, high = (_keyed(sides[side], key_of) for side in ("low", "high"))
        if low is None or high is None:
            continue
        if len(low.keys() & high.keys()) > most:
            most, best = len(low.keys() & high.keys()), (low, high)
        if most == max(len(low), len(high)):
            break
    low, high = best
    pairs = [
        PlannedPair("", common_name(low[key].name, high[key].name), low[key].entry, high[key].entry)
        for key in sorted(low.keys() & high.keys())
    ]
    known = {entry.path for pair in pairs for entry in (pair.low, pair.high)}
    every = [one.entry.path for found in sides.values() for one in found]
    return pairs, [path for path in every if path not in known]


def _keyed(files: list[Placed], key_of: Callable[[str], str]) -> dict[str, Placed] | None:
    """Files by key; none if two have the same."""
    keyed = {key_of(file.name): file for file in files}
    return keyed if len(keyed) == len(files) else None


def _splits(matched: Matched, name: str, *, merge: bool) -> dict[Bucket, str]:
    """Which set of pairs becomes which split.

    ``val`` judges where there is no ``test``, else it belongs to the pairs that training chooses
    its validation from.
    """
    found = sorted((b for b, (pairs, _) in matched.items() if pairs), key=_folder_of)
    roles = {bucket: role_of(bucket[1] or "") for bucket in found}
    every = set(roles.values())
    held = {"test"} if "test" in every or every == {"val"} else {"val"}
    splits = {b: EVAL_SPLIT if roles[b] in held else TRAIN_SPLIT for b in found}
    for split in (EVAL_SPLIT, TRAIN_SPLIT):
        sets = [b for b in found if splits[b] == split and roles[b] in {*held, "train", None}]
        if len(sets) > 1 and not merge:
            named = sorted(map(_folder_of, sets))
            raise DataError(
                f"{name}: several folders could be {split}: {', '.join(named)}; "
                "choose with --only NAME, or take all with --merge"
            )
    return splits


def _folder_of(bucket: Bucket) -> str:
    group, word = bucket
    return "/".join([*group, *([word] if word else [])]) or "."


def _named(
    pairs: Sequence[PlannedPair], bucket: Bucket, splits: dict[Bucket, str]
) -> Iterator[PlannedPair]:
    """Pairs with their split, and names that are apart from those of other sets in it."""
    group, word = bucket
    several = len({other[0] for other in splits if splits[other] == splits[bucket]}) > 1
    chosen_from = ["val"] if role_of(word or "") == "val" and splits[bucket] == TRAIN_SPLIT else []
    before = [*(group if several else ()), *chosen_from]
    for pair in pairs:
        name = "-".join([*before, pair.name])
        yield PlannedPair(splits[bucket], name, pair.low, pair.high)


def _seen(listed: Sequence[Entry], images: Sequence[Entry], patterns: Patterns | None) -> str:
    """What is there in place of pairs, and what to do."""
    folders = Counter("/".join(entry.path.parts[:-1]) or "." for entry in images)
    first = {"/".join(entry.path.parts[:-1]) or ".": entry.path.name for entry in reversed(images)}
    found = "; ".join(
        f"{folder}: {count} images such as {first[folder]}"
        for folder, count in sorted(folders.items())[:_NAMED]
    )
    more = f"; and {len(folders) - _NAMED} more folders" if len(folders) > _NAMED else ""
    what = f"seen: {found}{more}" if images else "there are no images in it"
    archives = [entry.path for entry in listed if entry.path.suffix.lower() == ".zip"]
    if archives and not images:
        return f"{what}, but zip files: give one of them, or unpack them: {some(archives)}"
    if patterns:
        sides = f"--low {patterns.low} and --high {patterns.high}"
        return f"{what}. Images of {sides} have no names in common"
    return (
        f"{what}. Expected are images of the same names in two folders such as low and high, or "
        "with such words in their names; name the sides with --low FOLDER --high FOLDER, or with "
        "globs whose * is the name of the pair: --low '*_dark.png' --high '*_ref.png'"
    )
