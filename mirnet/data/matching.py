"""Matching of files to pairs: by folders, by file names, or by patterns of the user.

Never by order: one missing file would shift every pair after it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath

from mirnet.data.layout import EVAL_SPLIT, IMAGE_SUFFIXES, TRAIN_SPLIT
from mirnet.data.naming import Reading, Side, common_name, readings, role_of, split_in
from mirnet.data.placing import Patterns, Placed, Way, ways
from mirnet.data.sources import Entry
from mirnet.errors import DataError

_NAMED = 5


@dataclass(frozen=True)
class PlannedPair:
    """Two entries of a source and their name in the data set."""

    split: str
    name: str
    low: Entry
    high: Entry


@dataclass(frozen=True)
class ImportPlan:
    pairs: tuple[PlannedPair, ...]
    unpaired: tuple[PurePosixPath, ...]
    ignored: tuple[PurePosixPath, ...]
    """Files that are not images of a side."""
    not_chosen: tuple[PurePosixPath, ...] = ()
    """Images whose path does not contain ``only``."""
    splits: tuple[tuple[str, str], ...] = ()
    """Folder of the source, ``.`` for its root, and the split that it becomes."""
    assumed: bool = False
    """Sides by convention (A and B), not by a word for dark and bright: compare the pixels."""
    links: tuple[PurePosixPath, ...] = ()
    """Not followed."""


Bucket = tuple[tuple[str, ...], str | None]


def plan_import(
    entries: Iterable[Entry],
    *,
    only: str | None,
    name: str,
    patterns: Patterns | None = None,
    merge: bool = False,
) -> ImportPlan:
    """Match entries to pairs by name.

    Args:
        only: Part of the path that entries must have.
        name: Of the source, for messages.
        merge: Take several sets as one; the folder of each is put before the names.

    Raises:
        DataError: no pairs, or ambiguous folders or names; lists what was found.
    """
    listed = sorted(entries, key=lambda entry: entry.path)
    every = [entry for entry in listed if entry.path.suffix.lower() in IMAGE_SUFFIXES]
    wanted = (only or "").casefold()
    images = [entry for entry in every if wanted in str(entry.path).casefold()]
    tried, problem = _try(images, patterns, name)
    best = _best(tried)
    if best is None or (problem and len(best.paired) < len(images)):
        raise problem or DataError(f"{name}: no pairs in it; {_seen(listed, images, patterns)}")
    _refuse_other_ways(best, tried, name)
    if patterns is None:
        _refuse_splits_in_names(best, name)
    matched = best.matched
    splits = _splits(matched, name, merge=merge)
    pairs = [pair for bucket in splits for pair in _named(matched[bucket].pairs, bucket, splits)]
    names = sorted(f"{pair.split}/{pair.name}" for pair in pairs)
    twice = [one for one, other in pairwise(names) if one == other]
    if twice:
        raise DataError(f"{name}: names that become the same: {some(twice)}")
    with_side = {path for one in tried if not one.way.assumed for path in one.placed}
    with_side |= best.placed.keys()
    not_chosen = {entry.path for entry in every} - {entry.path for entry in images}
    left_out = with_side | not_chosen
    return ImportPlan(
        pairs=tuple(pairs),
        unpaired=tuple(sorted(with_side - best.paired)),
        ignored=tuple(entry.path for entry in listed if entry.path not in left_out),
        not_chosen=tuple(sorted(not_chosen)),
        splits=tuple((_folder_of(bucket), split) for bucket, split in splits.items()),
        assumed=best.way.assumed or any(found.assumed for found in matched.values()),
    )


def some(names: Iterable[object]) -> str:
    """The first few, for a message."""
    listed = [str(name) for name in names]
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


@dataclass(frozen=True)
class _Found:
    pairs: list[PlannedPair]
    assumed: bool = False


Matched = dict[Bucket, _Found]


@dataclass(frozen=True)
class _Tried:
    way: Way
    placed: dict[PurePosixPath, Placed]
    matched: Matched
    paired: frozenset[PurePosixPath]


def _try(
    images: Sequence[Entry], patterns: Patterns | None, name: str
) -> tuple[list[_Tried], DataError | None]:
    """The result of each rule, and the error of the first refused one."""
    tried: list[_Tried] = []
    problem: DataError | None = None
    for way in ways(images, patterns):
        found = [one for entry in images if (one := way.place(entry)) is not None]
        try:
            matched = _match_all(found, name)
        except DataError as error:
            problem = problem or error
            continue
        pairs = [pair for bucket in matched.values() for pair in bucket.pairs]
        paired = frozenset(entry.path for pair in pairs for entry in (pair.low, pair.high))
        tried.append(_Tried(way, {one.entry.path: one for one in found}, matched, paired))
        if len(paired) == len(images) and len(tried) > 1:
            break  # inner and outer folders may disagree; other words in names are less certain
    return tried, problem


def _best(tried: Sequence[_Tried]) -> _Tried | None:
    """The rule with the most pairs, then the more certain one; conventions come last."""
    for assumed in (False, True):
        found = [one for one in tried if one.paired and one.way.assumed == assumed]
        if found:
            return max(found, key=lambda one: len(one.paired))
    return None


def _refuse_other_ways(best: _Tried, tried: Sequence[_Tried], name: str) -> None:
    """Refuse to leave out images that another rule pairs, or if it pairs as many others.

    Raises:
        DataError: there are some.
    """
    taken = {_key(pair) for pair in _pairs(best)}
    for other in tried:
        used = best.placed.keys() if other.way.assumed else best.paired
        left = [pair for pair in _pairs(other) if not used & _key(pair)]
        if not left and not other.way.assumed and len(other.paired) == len(best.paired):
            left = [pair for pair in _pairs(other) if _key(pair) not in taken]
        if left:
            counts = f"{len(taken)} by {best.way.what}, {_such_as(_pairs(best))}"
            raise DataError(
                f"{name}: pairs are told in two ways: {counts}; {len(left)} others by "
                f"{other.way.what}, {_such_as(left)}. Choose with --only NAME, or name the sides "
                "with --low and --high: folders, or globs such as '*_low.png'"
            )


def _key(pair: PlannedPair) -> frozenset[PurePosixPath]:
    return frozenset({pair.low.path, pair.high.path})


def _pairs(tried: _Tried) -> list[PlannedPair]:
    return [pair for found in tried.matched.values() for pair in found.pairs]


def _such_as(pairs: Sequence[PlannedPair]) -> str:
    return f"such as {pairs[0].low.path} and {pairs[0].high.path}"


def _refuse_splits_in_names(best: _Tried, name: str) -> None:
    """Refuse splits in file names, since test images would end up in training.

    Raises:
        DataError: names have words of several splits, or of one in a folder of both sides.
    """
    paired = [pair for b, match in best.matched.items() if b[1] is None for pair in match.pairs]
    splits = [split_in(pair.name) for pair in paired]
    found = [split for split in splits if split]
    certain = len({role for role, _ in found}) > 1
    if best.way.flat:
        certain |= any(numbered for _, numbered in found) or (bool(found) and all(splits))
    if certain:
        named = [pair.low.path for pair, split in zip(paired, splits, strict=True) if split]
        raise DataError(
            f"{name}: names of files say the split: {some(named)}. Put each split into a folder of "
            "its own, such as train and test, or take all, or some, as one set with --low and "
            "--high: folders, or globs such as --low 'train_*_low.png' --high 'train_*_high.png'"
        )


def _match_all(placed: Sequence[Placed], name: str) -> Matched:
    buckets: dict[Bucket, dict[Side, list[Placed]]] = {}
    for found in placed:
        sides = buckets.setdefault((found.group, found.split), {"low": [], "high": []})
        sides[found.side].append(found)
    return {bucket: _match(sides, name) for bucket, sides in buckets.items()}


def _match(sides: dict[Side, list[Placed]], name: str) -> _Found:
    """Pairs by the strictest interpretation of the names that finds the most."""
    for side, found in sides.items():
        folders = sorted({"/".join(one.folder) for one in found})
        if len(folders) > 1 and all(sides.values()):
            raise DataError(
                f"{name}: several folders could be {side}: {', '.join(folders)}; "
                "name the sides with --low FOLDER and --high FOLDER"
            )
    best = _Found([])
    lows, highs = sides["low"], sides["high"]
    if not lows or not highs:
        return best
    # words such as low and normal, and leading zeros, are removed only if that finds more pairs
    for reading in readings([one.name for one in lows], [one.name for one in highs]):
        low, high = (_indexed(names, reading) for names in (reading.low, reading.high))
        if low is None or high is None:
            continue
        keys = sorted(low.keys() & high.keys())
        if len(keys) > len(best.pairs):
            pairs = [
                PlannedPair(
                    "",
                    common_name(reading.low[low[key]], reading.high[high[key]]),
                    lows[low[key]].entry,
                    highs[high[key]].entry,
                )
                for key in keys
            ]
            best = _Found(pairs, reading.assumed)
        if len(keys) == max(len(lows), len(highs)):
            break
    return best


def _indexed(names: Sequence[str], reading: Reading) -> dict[str, int] | None:
    """Index by key; none if keys are not unique."""
    keyed = {reading.key_of(name): number for number, name in enumerate(names)}
    return keyed if len(keyed) == len(names) else None


def _splits(matched: Matched, name: str, *, merge: bool) -> dict[Bucket, str]:
    """The split of each set of pairs.

    ``val`` becomes the evaluation split if there is no ``test``; otherwise it joins the pairs from
    which training takes its validation split.
    """
    found = sorted((b for b, found in matched.items() if found.pairs), key=_folder_of)
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
    """Pairs with their split, and names that are unique within it."""
    group, word = bucket
    several = len({other[0] for other in splits if splits[other] == splits[bucket]}) > 1
    chosen_from = ["val"] if role_of(word or "") == "val" and splits[bucket] == TRAIN_SPLIT else []
    before = [*(group if several else ()), *chosen_from]
    for pair in pairs:
        name = "-".join([*before, pair.name])
        yield PlannedPair(splits[bucket], name, pair.low, pair.high)


def _seen(listed: Sequence[Entry], images: Sequence[Entry], patterns: Patterns | None) -> str:
    """Message: what was found instead of pairs, and what to do."""
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
