"""Interpretation of folder and file names: dark or bright side, split, and pair."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Literal

Side = Literal["low", "high"]

# a hyphen matches a hyphen, an underscore, a space or nothing
_LOW = (
    *("low", "low-light", "low-lit", "low-quality", "lq", "ll", "dark", "dim", "input", "inputs"),
    *("under", "under-exposed", "under-exposure", "short", "before"),
)
_HIGH = (
    *("high", "high-light", "high-quality", "hq", "normal", "normal-light", "normally-lit", "nl"),
    *("target", "targets", "gt", "gts", "ground-truth", "label", "labels", "reference"),
    *("references", "ref", "bright", "light", "well-lit", "well-exposed", "long", "after"),
)
_SIDES: dict[str, Side] = {
    **{word.replace("-", ""): "low" for word in _LOW},
    **{word.replace("-", ""): "high" for word in _HIGH},
}
_LETTERS: dict[str, Side] = {"a": "low", "b": "high"}
_SPLITS = {
    **dict.fromkeys(("our485", "train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("eval15", "eval", "evaluation", "test", "testing"), "test"),
}
_FILLERS = frozenset(
    {"image", "images", "img", "imgs", "photo", "photos", "picture", "pictures"}
    | {"data", "dataset", "set", "split", "pairs"}
)
_WORD_BREAK = re.compile(r"[-_ .]+|(?<=[a-z])(?=[A-Z])|(?<=[0-9])(?=[A-Z])")


Position = Literal["start", "end"]
# "in" is a side only at the end, and only of files
_WORDS_OF: dict[tuple[Side, Position], tuple[str, ...]] = {
    ("low", "start"): _LOW,
    ("low", "end"): (*_LOW, "in"),
    ("high", "start"): _HIGH,
    ("high", "end"): _HIGH,
}


def _affix(words: Iterable[str], at: Position) -> re.Pattern[str]:
    """Separate words: with a separator, or before a number; never lighthouse."""
    ordered = sorted(words, key=len, reverse=True)
    any_of = "|".join(word.replace("-", "[-_ ]?") for word in ordered)
    at_start = rf"^({any_of})(?:[-_ .]+(?=.)|(?=\d))"
    return re.compile(at_start if at == "start" else rf"(?<=.)[-_ .]+({any_of})$", re.IGNORECASE)


_AFFIXES: dict[Position, re.Pattern[str]] = {
    at: _affix([*_WORDS_OF["low", at], *_WORDS_OF["high", at]], at) for at in ("start", "end")
}
_AFFIX_OF = {
    side: [
        _affix([word], at)
        for at in ("end", "start")
        for word in sorted(_WORDS_OF[side, at], key=len, reverse=True)
    ]
    for side in ("low", "high")
}
_SPLIT_AFFIX = re.compile(
    rf"^(?P<start>{'|'.join(_SPLITS)})(?:[-_ .]+|(?=\d))(?=(?P<number>\d)|.)"
    rf"|(?<=(?P<digit>.))[-_ .]+(?P<end>{'|'.join(_SPLITS)})$"
)


@dataclass(frozen=True)
class FolderName:
    side: Side | None = None
    split: str | None = None
    """The word for the split, if any: ``train_low``."""
    rest: str = ""
    """The rest: ``LOL`` of ``LOL_low``."""


@cache
def read_folder(name: str, *, letters: bool = False, with_rest: bool = False) -> FolderName:
    """The side and the split of a folder.

    Args:
        name: Of one folder.
        letters: A and B count as words for low and high.
        with_rest: The word for the side may be before or after others.
    """
    words = [word.casefold() for word in _WORD_BREAK.split(name) if word]
    splits = [word for word in words if word in _SPLITS]
    rest = [word for word in words if word not in _SPLITS]
    rest = [word for word in rest if word not in _FILLERS] or rest
    sides = _LETTERS if letters else _SIDES
    split = splits[0] if len(splits) == 1 else None
    side = sides.get("".join(rest))
    if side or not with_rest:
        return FolderName(side, split)
    for count in reversed(range(1, len(rest))):
        for part, other in ((rest[-count:], rest[:-count]), (rest[:count], rest[count:])):
            if side := sides.get("".join(part)):
                return FolderName(side, split, " ".join(other))
    return FolderName(None, split)


@cache
def role_of(name: str) -> str | None:
    """train, val or test by the name of a folder: ``Training data``."""
    words = [word.casefold() for word in _WORD_BREAK.split(name) if word]
    kept = [word for word in words if word not in _FILLERS]
    return _SPLITS.get(kept[0]) if len(kept) == 1 else None


def side_of_file(stem: str, at: Position) -> tuple[Side, str] | None:
    """The side by a word before or after the name, and the name: ``1_low``, ``normal00001``."""
    found = _AFFIXES[at].search(stem)
    if found is None:
        return None
    word = re.sub(r"[-_ ]", "", found.group(1).casefold())
    name = stem[: found.start()] + stem[found.end() :]
    return ("low" if word == "in" else _SIDES[word]), name


def side_of_whole(stem: str) -> Side | None:
    """The side of a file named after it: ``low.png``, ``ground-truth.png``."""
    return _SIDES.get(re.sub(r"[-_ ]", "", stem.casefold()))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()


def _numbered(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().lstrip("0") or "0", _stem(name))


def _without_side(names: Sequence[str], side: Side) -> tuple[str, ...]:
    """Names without the word of their side, if all have the same one at the same position."""
    stems = [PurePosixPath(name).stem for name in names]
    for affix in _AFFIX_OF[side]:
        if all(map(affix.search, stems)):
            paths = map(PurePosixPath, names)
            return tuple(affix.sub("", path.stem) + path.suffix for path in paths)
    return tuple(names)


@dataclass(frozen=True)
class Reading:
    """One interpretation of the names of two sides: files with the same key are a pair."""

    low: Sequence[str]
    """Names, in the order of the files."""
    high: Sequence[str]
    key_of: Callable[[str], str]
    assumed: bool = False
    """A word was removed on one side only: ``dark_room`` and ``room`` may be unrelated."""


def readings(low: Sequence[str], high: Sequence[str]) -> Iterator[Reading]:
    """Strictest first: exact, without suffix and case, without words for sides, by number."""
    yield Reading(low, high, str)
    yield Reading(low, high, _stem)
    bare = _without_side(low, "low"), _without_side(high, "high")
    dropped = [now != tuple(before) for now, before in zip(bare, (low, high), strict=True)]
    assumed = any(dropped) and not all(dropped)
    if any(dropped):
        yield Reading(*bare, _stem, assumed)
    yield Reading(low, high, _numbered)
    if any(dropped):
        yield Reading(*bare, _numbered, assumed)


def split_in(name: str) -> tuple[str, bool] | None:
    """The split that a file name begins or ends with, and whether a number is next to it.

    ``train_1`` is part of a split; ``train_station`` may be a photograph of one.
    """
    found = _SPLIT_AFFIX.search(_stem(name))
    if found is None:
        return None
    if word := found.group("start"):
        return _SPLITS[word], found.group("number") is not None
    return _SPLITS[found.group("end")], found.group("digit").isdigit()


def common_name(low: str, high: str) -> str:
    """One file name for both sides: the same name, or their common part; PNG if formats differ."""
    if low == high:
        return low
    suffixes = {PurePosixPath(name).suffix.lower() for name in (low, high)}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".png"
    stem = PurePosixPath(low).stem
    if _stem(low) != _stem(high):
        # the longer of 1 and 0001, so that names sort like their numbers
        stem = max(stem, PurePosixPath(high).stem, key=len)
    return stem + suffix
