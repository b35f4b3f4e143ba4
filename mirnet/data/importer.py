"""Import of common layouts into the LoL layout; atomic and resumable."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from mirnet.atomic import replacing
from mirnet.data.alignment import align
from mirnet.data.archives import Limits
from mirnet.data.layout import IMAGE_SUFFIXES, SIDES
from mirnet.data.matching import ImportPlan, PlannedPair, plan_import, some
from mirnet.data.measures import measure_file
from mirnet.data.placing import Patterns
from mirnet.data.sources import Source, open_source
from mirnet.errors import DataError
from mirnet.images import decode, encode
from mirnet.params import ValidateParams

_MARKER = ".source"
_LOOKED_AT = 8


def import_data(
    source: Path,
    destination: Path,
    *,
    only: str | None = None,
    patterns: Patterns | None = None,
    merge: bool = False,
    skip_unpaired: bool = False,
    replace: bool = False,
    follow_links: bool = False,
    limits: Limits | None = None,
    on_pair: Callable[[int, int], None] | None = None,
) -> ImportPlan:
    """Import a zip file or folder into the LoL layout at ``destination``.

    Files are collected in a folder beside the destination, which replaces it atomically at the end.
    After an interruption the same call resumes, if neither a file of the source nor the plan has
    changed; otherwise it starts again.

    Args:
        only: Part of the path that entries must have, such as ``Real_captured``.
        patterns: Names of the sides, if they cannot be recognised.
        merge: Take several sets as one.
        skip_unpaired: Leave out images without a partner; otherwise they are an error.
        follow_links: Follow links in a folder; otherwise they are left out.
        on_pair: Called with the number of pairs done and the total.

    Raises:
        DataError: no pairs, ambiguous folders or names, images without a partner, a
            dangerous archive, or a destination that is not empty; names the problem.
    """
    if destination.exists() and not replace and any(destination.iterdir()):
        raise DataError(f"{destination}: is not empty; --replace takes its place")
    try:
        with open_source(source, limits=limits, follow_links=follow_links) as opened:
            plan = plan_import(
                opened.entries(), only=only, name=str(source), patterns=patterns, merge=merge
            )
            if not skip_unpaired:
                _refuse_leaving_out(plan, len(opened.links), source)
            if plan.assumed:
                _look_at_sides(opened, plan, source)
            staging = _open_staging(destination, f"{opened.fingerprint()} {_digest(plan)}")
            for number, pair in enumerate(plan.pairs, start=1):
                _bring(opened, pair, staging)
                if on_pair:
                    on_pair(number, len(plan.pairs))
            _leave_only(plan, staging)
            _take_place(staging, destination)
    except OSError as error:
        raise DataError(f"{error.filename or source}: {error.strerror or error}") from error
    return dataclasses.replace(plan, links=opened.links)


def _refuse_leaving_out(plan: ImportPlan, num_links: int, path: Path) -> None:
    """Refuse images without a partner, or more images of neither side than are taken.

    Raises:
        DataError: there are some.
    """
    option = "--skip-unpaired leaves them out"
    if plan.unpaired:
        links = f" ({num_links} links: --follow-links)" if num_links else ""
        raise DataError(
            f"{path}: {len(plan.unpaired)} images have no partner of the same name: "
            f"{some(plan.unpaired)}{links}; {option}"
        )
    images = [found for found in plan.ignored if found.suffix.lower() in IMAGE_SUFFIXES]
    if len(images) > 2 * len(plan.pairs):
        raise DataError(
            f"{path}: only {len(plan.pairs)} pairs, and {len(images)} images whose names say no "
            f"side: {some(images)}; name the sides with --low and --high; {option}"
        )


def _look_at_sides(source: Source, plan: ImportPlan, path: Path) -> None:
    """Compare the pixels of some pairs whose names are ambiguous.

    Raises:
        DataError: a low is not darker than its high, or most of them show different scenes.
    """
    step = max(1, len(plan.pairs) // _LOOKED_AT)
    looked_at = plan.pairs[::step][:_LOOKED_AT]
    unlike = 0
    with tempfile.TemporaryDirectory(prefix="mirnet-import-") as folder:
        for pair in looked_at:
            files = [Path(folder) / f"{side}.image" for side in ("low", "high")]
            for entry, file in zip((pair.low, pair.high), files, strict=True):
                source.copy(entry, file)
            low, high = (measure_file(file)[1] for file in files)
            if low is None or high is None:
                continue  # the gate reports the reason
            fit = align(low, high).alignment
            unlike += fit is not None and fit < ValidateParams().min_alignment
            if low.mean() >= high.mean():
                raise DataError(f"{path}: {_unsure(pair, 'is not darker than')}")
    if unlike > len(looked_at) / 2:
        raise DataError(f"{path}: {_unsure(looked_at[0], 'does not show the same as')}")


def _unsure(pair: PlannedPair, what: str) -> str:
    return (
        f"{pair.low.path} {what} {pair.high.path}: the names are no certain sign; "
        "name the sides with --low FOLDER --high FOLDER"
    )


def _open_staging(destination: Path, fingerprint: str) -> Path:
    """The staging folder; files of another source are removed."""
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
            continue  # complete: it is renamed only when complete
        with replacing(target) as partial:
            source.copy(entry, partial)
            if entry.path.suffix.lower() != target.suffix.lower():
                image = decode(partial.read_bytes(), name=str(entry.path))
                partial.write_bytes(encode(image, format="PNG"))


def _digest(plan: ImportPlan) -> str:
    return hashlib.sha256(repr(plan.pairs).encode("utf-8", "surrogateescape")).hexdigest()


def _leave_only(plan: ImportPlan, staging: Path) -> None:
    """Remove files that are not in the plan, such as those of a killed copy."""
    planned = {staging / pair.split / side / pair.name for pair in plan.pairs for side in SIDES}
    for path in sorted(staging.rglob("*"), reverse=True):  # a folder after its contents
        if path.is_dir() and not path.is_symlink():
            if not any(path.iterdir()):
                path.rmdir()
        elif path not in planned and path != staging / _MARKER:
            path.unlink()


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
