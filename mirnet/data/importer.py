"""Any layout that people have -> the LoL layout. All or nothing, and a second try goes on."""

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
from mirnet.images import MAX_PIXELS, decode, encode
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
    """Bring a zip file or folder into the LoL layout at ``destination``.

    Files are gathered in a folder beside the destination, which takes its place in one step at
    the end. After an interruption the same call goes on where it was, if no file of the source
    and nothing of the plan has changed since; else it starts again.

    Args:
        source: Zip file or folder.
        destination: Folder of the data set.
        only: Part of the path that entries must have, such as ``Real_captured``.
        patterns: How the sides are called, where their names do not say it.
        merge: Take several sets as one.
        skip_unpaired: Leave out images without a partner; else they are an error.
        replace: Take the place of what ``destination`` holds now.
        follow_links: Take what links in a folder lead to; else they are left out.
        limits: What archives may unpack to.
        on_pair: Called with pairs done and pairs in all.

    Raises:
        DataError: nothing to pair, ambiguous folders or names, images without a partner, a
            dangerous archive, or a destination that is not empty; names what is wrong.
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
    """Images without a partner, or more images of neither side than are taken.

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
    """Some pairs whose names are no certain sign of their sides, or that they belong together.

    Raises:
        DataError: a low is not darker than its high, or most of them show other things.
    """
    step = max(1, len(plan.pairs) // _LOOKED_AT)
    looked_at = plan.pairs[::step][:_LOOKED_AT]
    unlike = 0
    with tempfile.TemporaryDirectory(prefix="mirnet-import-") as folder:
        for pair in looked_at:
            files = [Path(folder) / f"{side}.image" for side in ("low", "high")]
            for entry, file in zip((pair.low, pair.high), files, strict=True):
                source.copy(entry, file)
            low, high = (measure_file(file, max_pixels=MAX_PIXELS)[1] for file in files)
            if low is None or high is None:
                continue  # the gate says why
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
        with replacing(target) as partial:
            source.copy(entry, partial)
            if entry.path.suffix.lower() != target.suffix.lower():
                image = decode(partial.read_bytes(), name=str(entry.path))
                partial.write_bytes(encode(image, format="PNG"))


def _digest(plan: ImportPlan) -> str:
    return hashlib.sha256(repr(plan.pairs).encode("utf-8", "surrogateescape")).hexdigest()


def _leave_only(plan: ImportPlan, staging: Path) -> None:
    """Take away what lies there and is not of the plan, such as files of a killed copy."""
    planned = {staging / pair.split / side / pair.name for pair in plan.pairs for side in SIDES}
    for path in sorted(staging.rglob("*"), reverse=True):  # a folder after what is in it
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
