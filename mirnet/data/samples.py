"""Sample pairs from photographs in the wheels of three packages."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mirnet.data.degradation import DegradationRanges
from mirnet.data.layout import EVAL_SPLIT, IMAGE_SUFFIXES, TRAIN_SPLIT, Pair, find_pairs
from mirnet.data.synthesis import Shot, synthesize
from mirnet.errors import DataError
from mirnet.extras import need


@dataclass(frozen=True)
class Photograph:
    name: str
    package: str
    resource: str
    distribution: str
    author: str
    licence: str
    split: str


PHOTOGRAPHS = (
    Photograph(
        "astronaut", "skimage", "data/astronaut.png", "scikit-image",
        "NASA (Eileen Collins)", "public domain", TRAIN_SPLIT,
    ),
    Photograph(
        "motorcycle", "skimage", "data/motorcycle_left.png", "scikit-image",
        "Middlebury stereo benchmark 2014 (Scharstein et al.)", "none stated", TRAIN_SPLIT,
    ),
    Photograph(
        "rocket", "skimage", "data/rocket.jpg", "scikit-image",
        "SpaceX", "public domain", TRAIN_SPLIT,
    ),
    Photograph(
        "china", "sklearn", "datasets/images/china.jpg", "scikit-learn",
        "danielbuechele, flickr.com/photos/danielbuechele/6061409035", "CC BY 2.0", TRAIN_SPLIT,
    ),
    Photograph(
        "flower", "sklearn", "datasets/images/flower.jpg", "scikit-learn",
        "vultilion, flickr.com/photos/vultilion/6056698931", "CC BY 2.0", TRAIN_SPLIT,
    ),
    Photograph(
        "chelsea", "skimage", "data/chelsea.png", "scikit-image",
        "Stefan van der Walt", "CC0", TRAIN_SPLIT,
    ),
    Photograph(
        "coffee", "skimage", "data/coffee.png", "scikit-image",
        "Rachel Michetti", "CC0", EVAL_SPLIT,
    ),
    Photograph(
        "hopper", "matplotlib", "mpl-data/sample_data/grace_hopper.jpg", "matplotlib",
        "James S. Davis, U.S. Navy (Grace Hopper)", "public domain", EVAL_SPLIT,
    ),
)  # fmt: skip
"""Train and evaluation never share a photograph."""

LICENSED = tuple(photo for photo in PHOTOGRAPHS if photo.licence != "none stated")
"""Those whose licence allows a published model to be trained on them."""


def make_sample_data(
    dst: Path,
    *,
    seed: int = 0,
    num_train: int = 60,
    num_eval: int = 12,
    size: int = 288,
    photographs: Sequence[Photograph] = PHOTOGRAPHS,
    ranges: DegradationRanges | None = None,
) -> list[Pair]:
    """Write a small data set in the LoL layout to ``dst``, atomically.

    Args:
        dst: Folder to create; an existing one is replaced only if it is a sample set.
        seed: Same seed, same bytes.
        num_train: Pairs in ``our485``.
        num_eval: Pairs in ``eval15``, of photographs that ``our485`` does not have.
        size: Side in pixels of all images.
        photographs: what the pairs are made from.
        ranges: of the degradation; none: as published.

    Raises:
        ExtraMissing: a package of the ``demo`` extra is missing.
        DataError: ``dst`` has other contents.
    """
    shots = [
        shot
        for split, count in ((TRAIN_SPLIT, num_train), (EVAL_SPLIT, num_eval))
        for shot in _shots(photographs, split, count, size)
    ]
    notes = sources_table(photographs)
    return _make(shots, dst, seed=seed, notes=notes, ranges=ranges or DegradationRanges())


def make_from_photographs(
    src: Path,
    dst: Path,
    *,
    seed: int = 0,
    per_photo: int = 1,
    size: int | None = None,
    eval_share: float = 0.1,
    ranges: DegradationRanges | None = None,
    num_processes: int = 1,
) -> list[Pair]:
    """Dark pairs from a folder of well-lit photographs, in the LoL layout, written atomically.

    Args:
        src: Folder, searched with its subfolders.
        dst: Folder to create; an existing one is replaced only if it was created here.
        seed: Same seed and photographs, same bytes, in any number of processes.
        per_photo: Pairs per photograph, with different parameters and crops.
        size: Side in pixels of square crops; none: whole photographs.
        eval_share: Share of the photographs, at least one, that are used for ``eval15`` only.

    Raises:
        DataError: no photographs, or ``dst`` has other contents.
        ImageError: a photograph is not an 8-bit RGB image; names it.
    """
    photos = sorted(
        p for p in src.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and not p.is_dir()
    )
    if not photos:
        raise DataError(f"{src}: no photographs in it")
    held = round(eval_share * len(photos)) or (1 if eval_share and len(photos) > 1 else 0)
    order = np.random.default_rng(seed).permutation(len(photos))
    judged = {photos[i] for i in order[:held]}
    shots = []
    for photo in photos:
        source = photo.relative_to(src).as_posix()
        stem = source.replace("/", "-")
        split = EVAL_SPLIT if photo in judged else TRAIN_SPLIT
        for turn in range(per_photo):
            name = f"{stem}-{turn + 1:02d}.png" if per_photo > 1 else f"{stem}.png"
            shots.append(Shot(f"{split}/{name}", source, photo, size))
    notes = f"# Synthetic pairs\n\nMade from {len(photos)} photographs; see `pairs.csv`.\n"
    return _make(
        shots,
        dst,
        seed=seed,
        notes=notes,
        ranges=ranges or DegradationRanges(),
        num_processes=num_processes,
    )


def _make(
    shots: list[Shot],
    dst: Path,
    *,
    seed: int,
    notes: str,
    ranges: DegradationRanges,
    num_processes: int = 1,
) -> list[Pair]:
    if dst.exists() and any(dst.iterdir()) and not (dst / "SOURCES.md").is_file():
        raise DataError(f"{dst}: holds something that is no sample set; give another folder")
    dst.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=dst.parent, prefix=f".{dst.name}.") as scratch:
        made = Path(scratch) / dst.name
        synthesize(shots, made, seed=seed, ranges=ranges, num_processes=num_processes)
        (made / "SOURCES.md").write_text(notes, encoding="utf-8")
        if dst.exists():
            shutil.rmtree(dst)
        made.replace(dst)
    return find_pairs(dst)


def sources_table(photographs: Sequence[Photograph] = PHOTOGRAPHS) -> str:
    """Authors and licences of the photographs, as Markdown."""
    lines = [
        "# Sources of the sample pairs",
        "",
        "Real photographs, darkened by a model of a camera; `pairs.csv` has the parameters.",
        "",
        "| photograph | from the package | author | licence | used in |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {p.name} | {p.distribution} | {p.author} | {p.licence} | {p.split} |"
        for p in photographs
    ]
    return "\n".join(lines) + "\n"


def photograph_path(photo: Photograph) -> Path:
    """The file inside the installed package.

    Raises:
        ExtraMissing: the package is not installed.
        DataError: it no longer has the file; names both.
    """
    need("demo", photo.package)
    spec = find_spec(photo.package)  # finds the folder without the cost of importing it
    folders = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(folders[0] if folders else "", photo.resource)
    if not path.is_file():
        raise DataError(f"{photo.distribution} no longer carries {photo.resource}: {path}")
    return path


def _shots(photographs: Sequence[Photograph], split: str, count: int, size: int) -> list[Shot]:
    photos = [p for p in photographs if p.split == split]
    return [
        Shot(f"{split}/{photo.name}-{turn + 1:02d}.png", photo.name, photograph_path(photo), size)
        for turn, photo in ((i // len(photos), photos[i % len(photos)]) for i in range(count))
    ]
