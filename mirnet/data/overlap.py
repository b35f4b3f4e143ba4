"""Images of one set that show a scene of another, found by content.

Published tables train on one set and test on another that holds the same scenes: the test half of
LOL-v2 repeats scenes of the training half of LoL.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mirnet.data.layout import IMAGE_SUFFIXES, SIDES
from mirnet.data.measures import FileFacts, measure_file
from mirnet.data.scenes import find_shared
from mirnet.errors import DataError
from mirnet.junk import is_junk


@dataclass(frozen=True)
class Shared:
    """An image of the second set, and the most similar one of the first.

    Attributes:
        first: path below the first set.
        second: path below the second set.
        same: ``pixels`` if both decode to the same pixels; ``scene`` otherwise.
        similarity: correlation of the luminance, 0.92 to 1.
    """

    first: str
    second: str
    same: Literal["pixels", "scene"]
    similarity: float


@dataclass(frozen=True)
class Overlap:
    """What two sets share.

    Attributes:
        shared: one entry per pair or image of the second set, sorted by its path.
        first_count: pairs, and images that are in no pair, of the first set.
        second_count: likewise of the second.
        unreadable: files of either that could not be decoded, and why.
    """

    shared: tuple[Shared, ...]
    first_count: int
    second_count: int
    unreadable: tuple[str, ...]

    def __str__(self) -> str:
        same = sum(shared.same == "pixels" for shared in self.shared)
        return (
            f"{len(self.shared)} of {self.second_count} in the second set are also among the "
            f"{self.first_count} of the first: {same} with the same pixels, "
            f"{len(self.shared) - same} of the same scene"
        )


def find_overlap(
    first: Path, second: Path, *, progress: Callable[[int, int], None] | None = None
) -> Overlap:
    """Compare each image of a set with each of another, dark ones and references alike.

    A set is any folder, with its subfolders; ``low/NAME`` and ``high/NAME`` count as one pair.

    Raises:
        DataError: no such folder, no images in one, or one within the other.
    """
    inside = first.resolve().is_relative_to(second.resolve())
    if inside or second.resolve().is_relative_to(first.resolve()):
        raise DataError(f"{first} and {second}: one is in the other; name two separate folders")
    sets = [_images(first), _images(second)]
    paths = [path for images in sets for path in images]
    facts: list[FileFacts] = []
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for fact in pool.map(lambda path: measure_file(path)[0], paths):
            facts.append(fact)
            if progress is not None:
                progress(len(facts), len(paths))
    measured = dict(zip(paths, facts, strict=True))
    one_set, other_set = (
        [path for path in images if measured[path].thumb is not None] for images in sets
    )
    best: dict[Path, Shared] = {}
    for (one, other), value in _compare(one_set, other_set, measured).items():
        same: Literal["pixels", "scene"] = "scene"
        if measured[one].pixels == measured[other].pixels:
            same, value = "pixels", 1.0
        here = Shared(
            one.relative_to(first).as_posix(), other.relative_to(second).as_posix(), same, value
        )
        known = best.get(_pair(other))
        if known is None or _rank(here) > _rank(known):
            best[_pair(other)] = here
    return Overlap(
        shared=tuple(sorted(best.values(), key=lambda shared: shared.second)),
        first_count=len({_pair(path) for path in sets[0]}),
        second_count=len({_pair(path) for path in sets[1]}),
        unreadable=tuple(f"{p}: {fact.error}" for p, fact in measured.items() if fact.error),
    )


def _rank(shared: Shared) -> tuple[bool, float]:
    return shared.same == "pixels", shared.similarity


def _compare(
    first: list[Path], second: list[Path], measured: dict[Path, FileFacts]
) -> dict[tuple[Path, Path], float]:
    """Correlation of the images that show one scene."""
    thumbs = [[measured[path].thumb or b"" for path in paths] for paths in (first, second)]
    return {(first[i], second[j]): value for (i, j), value in find_shared(*thumbs).items()}


def _images(root: Path) -> list[Path]:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; `mirnet data import` unpacks a zip file")
    found = (p for p in root.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    images = sorted(p for p in found if not is_junk(p.relative_to(root).parts))
    if not images:
        raise DataError(f"{root}: no images in it")
    return images


def _pair(path: Path) -> Path:
    """Equal for both sides of a pair."""
    return path.parent.parent / path.name if path.parent.name in SIDES else path
