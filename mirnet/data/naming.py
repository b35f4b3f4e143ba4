"""What names of folders and files say: dark or bright side, split, and which pair."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import Literal

Side = Literal["low", "high"]

# a hyphen is a hyphen, an underscore, a space or nothing
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


def _alternatives(words: tuple[str, ...]) -> str:
    ordered = sorted(words, key=len, reverse=True)
    return "|".join(word.replace("-", "[-_ ]?") for word in ordered)


_WORDS = _alternatives((*_LOW, *_HIGH))
# in and out name a side only at the end, and only of files
_AFFIX = re.compile(rf"^({_WORDS})(?:[-_ .]+(?=.)|(?=\d))|[-_ .]+({_WORDS}|in)$")
_LOOSE_AFFIX = re.compile(rf"^({_WORDS})[-_ ]?(?=.)|[-_ .]+({_WORDS}|in)$")


@dataclass(frozen=True)
class FolderName:
    """What the name of one folder says."""

    side: Side | None = None
    split: str | None = None
    """Its word for the split, if it has one: ``train_low``."""
    rest: str = ""
    """What else is in it: ``LOL`` of ``LOL_low``."""


@cache
def read_folder(name: str, *, letters: bool = False, with_rest: bool = False) -> FolderName:
    """The side and the split that a folder is of.

    Args:
        name: Of one folder.
        letters: A and B count as words for low and high.
        with_rest: The word for the side may stand before or after others.
    """
    words = [word.casefold() for word in _WORD_BREAK.split(name) if word]
    splits = [word for word in words if word in _SPLITS]
    rest = [word for word in words if word not in _SPLITS]
    rest = [word for word in rest if word not in _FILLERS] or rest
    known = _LETTERS if letters else _SIDES
    split = splits[0] if len(splits) == 1 else None
    side = known.get("".join(rest))
    if side or not with_rest:
        return FolderName(side, split)
    for count in reversed(range(1, len(rest))):
        for part, other in ((rest[-count:], rest[:-count]), (rest[:count], rest[count:])):
            if side := known.get("".join(part)):
                return FolderName(side, split, " ".join(other))
    return FolderName(None, split)


@cache
def role_of(name: str) -> str | None:
    """train, val or test if a folder is called so: ``Training data``."""
    words = [word.casefold() for word in _WORD_BREAK.split(name) if word]
    told = [word for word in words if word not in _FILLERS]
    return _SPLITS.get(told[0]) if len(told) == 1 else None


def side_of_file(stem: str) -> Side | None:
    """The side by a word before or after the name: ``1_low``, ``normal00001``."""
    found = _AFFIX.search(stem.casefold())
    if found is None:
        return None
    word = re.sub(r"[-_ ]", "", found.group(1) or found.group(2))
    return "low" if word == "in" else _SIDES[word]


def side_of_whole(stem: str) -> Side | None:
    """The side of a file that is called as it: ``low.png``, ``ground-truth.png``."""
    return _SIDES.get(re.sub(r"[-_ ]", "", stem.casefold()))


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()


def _bare(name: str) -> str:
    return _LOOSE_AFFIX.sub("", _stem(name))


def _numbered(name: str) -> str:
    return re.sub(r"\d+", lambda digits: digits.group().lstrip("0") or "0", _bare(name))


READINGS = (str, _stem, _bare, _numbered)
"""Readings of a name, strictest first: two files with the same are a pair."""


def common_name(low: str, high: str) -> str:
    """One file name for both sides: as it is, else what both have, as PNG where kinds differ."""
    if low == high:
        return low
    suffixes = {PurePosixPath(name).suffix.lower() for name in (low, high)}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".png"
    stem = PurePosixPath(low).stem
    if _stem(low) != _stem(high):
        # the longer of 1 and 0001: names then sort as their numbers
        stem = max(_bare(low), _bare(high), key=len)
    return stem + suffix
