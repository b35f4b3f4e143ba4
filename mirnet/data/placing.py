"""Side, split and name of the files of a source, by each of several rules."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath

from mirnet.data.naming import (
    Position,
    Side,
    read_folder,
    role_of,
    side_of_file,
    side_of_whole,
)
from mirnet.data.sources import Entry


@dataclass(frozen=True)
class Patterns:
    """The user's patterns of the sides: a folder, or a glob whose ``*`` is the name of the pair."""

    low: str
    high: str


@dataclass(frozen=True)
class Placed:
    """An entry with its side, and its name below the folder of its side."""

    entry: Entry
    side: Side
    name: str
    group: tuple[str, ...]
    """Parent folders, without the one of the split."""
    split: str | None
    """The word for the split in the source: train, our485, Val."""
    folder: tuple[str, ...]
    """Of the side."""


@dataclass(frozen=True)
class Way:
    """One rule to place an entry; none: not part of the data set."""

    what: str
    """For a message."""
    place: Callable[[Entry], Placed | None]
    assumed: bool = False
    """The sides, by convention."""
    flat: bool = False
    """Both sides are in one folder."""


def ways(images: Sequence[Entry], patterns: Patterns | None) -> Iterator[Way]:
    """The rules, most certain first."""
    if patterns is not None:
        sides: dict[Side, re.Pattern[str]] = {
            "low": _translate(patterns.low),
            "high": _translate(patterns.high),
        }
        yield Way("--low and --high", partial(_by_pattern, sides=sides))
        return
    yield Way("folders", _by_folder)
    yield Way("outer folders", partial(_by_folder, inner=False))
    # LOL_low/1.png and LOL_normal/1.png
    yield Way("words in names of folders", partial(_by_folder, with_rest=True))
    for positions in (("end",), ("start",), ("end", "start")):
        place = partial(_by_file, positions=positions)
        yield Way("words in names of files", place, flat=True)
    yield Way("names of files", _by_whole_file, flat=True)
    # trainA/1.png and trainB/1.png
    yield Way("A and B", partial(_by_folder, letters=True), assumed=True)
    for at in ("end", "start"):
        words = (side_of_file(entry.path.stem, at) for entry in images)
        named = {found[0] for found in words if found}
        if len(named) == 1:  # 1.png and 1_gt.png
            rest: Side = "high" if named == {"low"} else "low"
            place = partial(_by_file, positions=(at,), rest=rest)
            yield Way(f"a word for {named.pop()} only", place, assumed=True, flat=True)


def _by_folder(entry: Entry, *, inner: bool = True, **reading: bool) -> Placed | None:
    parts = entry.path.parts
    depths = range(len(parts) - 1)
    for depth in reversed(depths) if inner else depths:
        name = read_folder(parts[depth], **reading)
        if name.side:
            above = parts[:depth] + ((name.rest,) if name.rest else ())
            folder = parts[: depth + 1]
            return _placed(entry, name.side, name.split, above, parts[depth + 1 :], folder)
    return None


def _by_file(
    entry: Entry, positions: Sequence[Position], rest: Side | None = None
) -> Placed | None:
    """``1_low.png`` and ``1_high.png``; ``rest``: the side of files without a word for it."""
    sides = [found for at in positions if (found := side_of_file(entry.path.stem, at))]
    if len({side for side, _ in sides}) > 1:
        return None  # dark_room_high: one of them is of the scene
    side, name = sides[0] if sides else (rest, entry.path.stem)
    if side is None:
        return None
    return _placed(entry, side, None, entry.path.parts[:-1], (name + entry.path.suffix,), ())


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
    """A glob as a regular expression with groups for the prefix and the wildcards."""
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
    """The entry without the folder of the split, which may be above or below that of the side."""
    if split is None and len(below) > 1 and role_of(below[0]):
        split, below = below[0], below[1:]
    depths = [d for d in reversed(range(len(above))) if role_of(above[d])]
    if split is None and depths:
        split = above[depths[0]]
        above = above[: depths[0]] + above[depths[0] + 1 :]
    name = unicodedata.normalize("NFC", "-".join(below))
    return Placed(entry, side, name, above, split, folder)
