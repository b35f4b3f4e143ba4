"""The LoL layout: ``<split>/low/NAME`` and ``<split>/high/NAME``, matched by name.

Never by order: one missing file would shift every pair after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirnet.errors import DataError
from mirnet.images.formats import SUFFIXES

TRAIN_SPLIT = "our485"
EVAL_SPLIT = "eval15"
SIDES = ("low", "high")
IMAGE_SUFFIXES = frozenset(SUFFIXES)
PAIRS_TABLE = "pairs.csv"
"""Table beside the splits with further data of each pair (source photograph, ...)."""
NOTES = frozenset({PAIRS_TABLE, "SOURCES.md", "README.md", "README.txt", "LICENSE", "LICENSE.txt"})


@dataclass(frozen=True, order=True)
class Pair:
    """One dark image and its reference."""

    split: str
    name: str
    low_path: Path
    high_path: Path

    @property
    def id(self) -> str:
        """``our485/1.png``."""
        return f"{self.split}/{self.name}"


@dataclass(frozen=True)
class Layout:
    """All files of a data set, classified."""

    root: Path
    pairs: tuple[Pair, ...]
    missing: tuple[Path, ...]
    """Missing files whose partners exist."""
    strays: tuple[Path, ...]
    """Files that do not belong."""
    empty_splits: tuple[str, ...]
    """Split folders without a single pair."""

    @property
    def num_pairs(self) -> dict[str, int]:
        """Pairs by split folder."""
        counts = dict.fromkeys(self.empty_splits, 0)
        for pair in self.pairs:
            counts[pair.split] = counts.get(pair.split, 0) + 1
        return dict(sorted(counts.items()))


def scan(root: Path) -> Layout:
    """Classify the files below ``root`` as pairs, missing partners and strays.

    Raises:
        DataError: ``root`` is not a folder, or has no split folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give one in the LoL layout (our485/low, ...)")
    splits = sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    splits = [p for p in splits if any((p / side).is_dir() for side in SIDES)]
    if not splits:
        raise DataError(
            f"{root}: no split folder with low/ and high/ in it; "
            "`mirnet data import` brings other layouts into this one"
        )
    pairs: list[Pair] = []
    missing: list[Path] = []
    empty: list[str] = []
    for split in splits:
        found, lacking = _match(split)
        pairs += found
        missing += lacking
        if not found:
            empty.append(split.name)
    expected = {path for pair in pairs for path in (pair.low_path, pair.high_path)}
    expected |= {_partner(path) for path in missing}
    expected |= {root / note for note in NOTES}
    strays = sorted(p for p in root.rglob("*") if not p.is_dir() and p not in expected)
    return Layout(root, tuple(pairs), tuple(missing), tuple(strays), tuple(empty))


def find_pairs(root: Path) -> list[Pair]:
    """All pairs below ``root``, sorted by split and name.

    Raises:
        DataError: no such folder, no pairs, or an image without its partner; names it.
    """
    layout = scan(root)
    if layout.missing:
        more = f" (and {len(layout.missing) - 1} more)" if len(layout.missing) > 1 else ""
        first = layout.missing[0]
        raise DataError(
            f"{first} is missing{more}: add it, or remove its partner {_partner(first)}"
        )
    if not layout.pairs:
        raise DataError(f"{root}: no pairs in it")
    return list(layout.pairs)


def _match(split: Path) -> tuple[list[Pair], list[Path]]:
    low, high = (_images(split / side) for side in SIDES)
    pairs = [
        Pair(split.name, name, split / "low" / name, split / "high" / name)
        for name in sorted(low & high)
    ]
    missing = [split / "high" / name for name in sorted(low - high)]
    missing += [split / "low" / name for name in sorted(high - low)]
    return pairs, missing


def _images(folder: Path) -> set[str]:
    if not folder.is_dir():
        return set()
    return {
        p.name
        for p in folder.iterdir()
        if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith(".") and not p.is_dir()
    }


def _partner(path: Path) -> Path:
    other = "low" if path.parent.name == "high" else "high"
    return path.parent.parent / other / path.name
