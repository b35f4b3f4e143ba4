"""Any layout that people have -> the LoL layout. All or nothing, and a second try goes on."""

from __future__ import annotations

import logging
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Literal

from mirnet.data.layout import EVAL_SPLIT, IMAGE_SUFFIXES, TRAIN_SPLIT
from mirnet.data.sources import Entry, Source, open_source
from mirnet.errors import DataError
from mirnet.images import decode, encode

log = logging.getLogger(__name__)

Side = Literal["low", "high"]

SIDE_FOLDERS: dict[str, Side] = {
    **dict.fromkeys(("low", "input", "inputs", "dark", "lq", "lowlight"), "low"),
    **dict.fromkeys(("high", "normal", "target", "targets", "gt", "groundtruth", "hq"), "high"),
}
SPLIT_FOLDERS = {
    **dict.fromkeys(("our485", "train", "training"), TRAIN_SPLIT),
    **dict.fromkeys(("eval15", "test", "testing", "eval"), EVAL_SPLIT),
}
_WORDS = "|".join(sorted(SIDE_FOLDERS, key=len, reverse=True))
_AFFIX = re.compile(rf"^({_WORDS})[-_ ]?(?=.)|[-_ ]({_WORDS})$")
_MARKER = ".source"
_NAMED = 5


@dataclass(frozen=True)
class Named:
    """An entry, and its name below the folder of its side."""

    name: str
    entry: Entry


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
    """Files that are no images in a low or high folder."""


def import_data(
    source: Path,
    destination: Path,
    *,
    only: str | None = None,
    skip_unpaired: bool = False,
    replace: bool = False,
    on_pair: Callable[[int, int], None] | None = None,
) -> Plan:
    """Bring a zip file or folder into the LoL layout at ``destination``.

    Files are gathered in a folder beside the destination, which takes its place in one step at
    the end. After an interruption the same call goes on where it was.

    Args:
        source: Zip file or folder.
        destination: Folder of the data set.
        only: Part of the path that entries must have, such as ``Real_captured``.
        skip_unpaired: Leave out images without a partner; else they are an error.
        replace: Take the place of what ``destination`` holds now.
        on_pair: Called with pairs done and pairs in all.

    Raises:
        DataError: nothing to pair, ambiguous folders or names, images without a partner, a
            dangerous archive, or a destination that is not empty; names what is wrong.
    """
    if destination.exists() and not replace and any(destination.iterdir()):
        raise DataError(f"{destination}: is not empty; --replace takes its place")
    with open_source(source) as opened:
        plan = plan_import(opened.entries(), only=only, name=str(source))
        if plan.unpaired and not skip_unpaired:
            raise DataError(
                f"{source}: {len(plan.unpaired)} images have no partner of the same name: "
                f"{_some(plan.unpaired)}; --skip-unpaired leaves them out"
            )
        try:
            staging = _open_staging(destination, f"{opened.fingerprint()} {only}")
            for number, pair in enumerate(plan.pairs, start=1):
                _bring(opened, pair, staging)
                if on_pair:
                    on_pair(number, len(plan.pairs))
            _take_place(staging, destination)
        except OSError as error:
            raise DataError(f"{error.filename or destination}: {error.strerror}") from error
    return plan


def plan_import(entries: Iterable[Entry], *, only: str | None, name: str) -> Plan:
    """Match entries to pairs by name, never by order.

    Raises:
        DataError: no pairs, or ambiguous folders or names.
    """
    groups: dict[tuple[str, ...], dict[Side, list[Named]]] = {}
    ignored: list[PurePosixPath] = []
    for entry in entries:
        place = _place(entry.path)
        if place is None or (only and only.casefold() not in str(entry.path).casefold()):
            ignored.append(entry.path)
            continue
        group, side, inner = place
        groups.setdefault(group, {"low": [], "high": []})[side].append(Named(inner, entry))
    pairs: list[PlannedPair] = []
    unpaired: list[PurePosixPath] = []
    for split, group in _splits(groups, name).items():
        found, left = _match(split, groups[group], name)
        pairs += found
        unpaired += left
    if not pairs:
        raise DataError(
            f"{name}: no pairs in it; expected images of the same names in folders "
            "low and high, Low and Normal, or input and target"
        )
    return Plan(tuple(pairs), tuple(sorted(unpaired)), tuple(ignored))


def _place(path: PurePosixPath) -> tuple[tuple[str, ...], Side, str] | None:
    """Folders above the side, the side, and the name below it; none for other files."""
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return None
    folders = path.parts[:-1]
    for depth in range(len(folders) - 1, -1, -1):
        side = SIDE_FOLDERS.get(folders[depth].casefold().replace("-", "").replace("_", ""))
        if side:
            inner = "-".join(path.parts[depth + 1 :])
            return folders[:depth], side, unicodedata.normalize("NFC", inner)
    return None


def _splits(groups: Iterable[tuple[str, ...]], name: str) -> dict[str, tuple[str, ...]]:
    """Which group of folders becomes which split."""
    splits: dict[str, list[tuple[str, ...]]] = {}
    for group in groups:
        last = group[-1].casefold() if group else ""
        splits.setdefault(SPLIT_FOLDERS.get(last, TRAIN_SPLIT), []).append(group)
    for split, candidates in splits.items():
        if len(candidates) > 1:
            named = ", ".join("/".join(group) or "." for group in sorted(candidates))
            raise DataError(
                f"{name}: several folders could be {split}: {named}; choose with --only NAME"
            )
    return {split: candidates[0] for split, candidates in sorted(splits.items())}


def _match(
    split: str, sides: dict[Side, list[Named]], name: str
) -> tuple[list[PlannedPair], list[PurePosixPath]]:
    """Pairs by the strictest reading of the names that finds the most."""
    best: tuple[dict[str, Named], dict[str, Named]] = ({}, {})
    most = -1
    # words such as low and normal are dropped from names only where that finds more
    for key_of in (str, _stem, _bare):
        low, high = (_keyed(sides[side], key_of) for side in ("low", "high"))
        if low is None or high is None:
            continue
        if len(low.keys() & high.keys()) > most:
            most, best = len(low.keys() & high.keys()), (low, high)
    low, high = best
    common = sorted(low.keys() & high.keys())
    pairs = [
        PlannedPair(
            split, _common_name(low[key].name, high[key].name), low[key].entry, high[key].entry
        )
        for key in common
    ]
    names = sorted(pair.name for pair in pairs)
    twice = [one for one, other in pairwise(names) if one == other]
    if twice:
        raise DataError(f"{name}: names that become the same: {_some(twice)}")
    left = [side[key].entry.path for side in best for key in side.keys() - set(common)]
    return pairs, left


def _keyed(files: list[Named], key_of: Callable[[str], str]) -> dict[str, Named] | None:
    """Files by key; none if two have the same."""
    keyed = {key_of(file.name): file for file in files}
    return keyed if len(keyed) == len(files) else None


def _stem(name: str) -> str:
    return PurePosixPath(name).stem.casefold()


def _bare(name: str) -> str:
    return _AFFIX.sub("", _stem(name))


def _common_name(low: str, high: str) -> str:
    """One file name for both sides: as it is, else what both have, as PNG where kinds differ."""
    if low == high:
        return low
    suffixes = {PurePosixPath(n).suffix.lower() for n in (low, high)}
    suffix = suffixes.pop() if len(suffixes) == 1 else ".png"
    stem = PurePosixPath(low).stem
    if _stem(low) != _stem(high):
        stem = _bare(low)
    return stem + suffix


def _open_staging(destination: Path, fingerprint: str) -> Path:
    """The folder to gather in; what another source left there goes."""
    staging = destination.parent / f".{destination.name}.importing"
    marker = staging / _MARKER
    if staging.exists() and not (marker.is_file() and marker.read_text() == fingerprint):
        shutil.rmtree(staging)
    staging.mkdir(parents=True, exist_ok=True)
    marker.write_text(fingerprint)
    return staging


def _bring(source: Source, pair: PlannedPair, staging: Path) -> None:
    for side, entry in (("low", pair.low), ("high", pair.high)):
        target = staging / pair.split / side / pair.name
        if target.is_file():
            continue  # whole: it got its name only then
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f".{target.name}.part")
        source.copy(entry, partial)
        if entry.path.suffix.lower() != target.suffix.lower():
            image = decode(partial.read_bytes(), name=str(entry.path))
            partial.write_bytes(encode(image, format="PNG"))
        partial.replace(target)


def _take_place(staging: Path, destination: Path) -> None:
    (staging / _MARKER).unlink()
    old = destination.parent / f".{destination.name}.replaced"
    if old.exists():
        shutil.rmtree(old)
    if destination.exists():
        destination.replace(old)
    staging.replace(destination)
    if old.exists():
        shutil.rmtree(old)


def _some(names: Iterable[object]) -> str:
    listed = [str(name) for name in names]
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")
