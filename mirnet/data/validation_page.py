"""The page of a validation: one HTML file with the flagged pairs as images; works offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.data.checks import DataCheck
from mirnet.data.layout import SIDES
from mirnet.errors import ImageError
from mirnet.images import decode
from mirnet.images.thumbnails import data_uri, to_8_bit
from mirnet.pages import template
from mirnet.results import Finding, ValidationResult

MAX_PAIRS = 60
"""Pairs that are shown as images; about 20 kB each."""
MAX_LISTED = 500
"""Findings on the page, those beside images included."""
_SIDE = 240
_QUALITY = 80
_WHOLE_SET = "*"
_NO_PAIR = ("stray", "empty-split")
Files = Mapping[str, Mapping[Any, object]]
"""Kind and paths of both sides, by pair."""


@dataclass(frozen=True)
class FlaggedPair:
    """A pair or file with its findings.

    ``images``: those of the pair under the empty name, and those of the pairs that it repeats:
    data URI by caption, none where there is no image.
    """

    pair: str
    findings: Sequence[Finding]
    images: Mapping[str, Mapping[str, str | None]]

    @property
    def critical(self) -> bool:
        return any(finding.severity == "critical" for finding in self.findings)


@dataclass(frozen=True)
class _Heading:
    title: str


def render_validation(
    target: Path,
    result: ValidationResult,
    *,
    root: Path,
    manifest: pd.DataFrame,
    suite: Sequence[DataCheck],
) -> Path:
    """Write the page.

    Args:
        root: folder of the images.
        manifest: with the paths of both sides by pair.
        suite: the checks that were made.
    """
    paths = manifest[["pair", "kind", *SIDES]].drop_duplicates("pair")
    files: Files = {str(row["pair"]): row for row in paths.to_dict("records")}
    listed = result.findings[:MAX_LISTED]
    by_pair = _by_pair(listed)
    counts = Counter(finding.check for finding in result.findings)
    severities = Counter[str](finding.severity for finding in result.findings)
    html = template("data/validation.html").render(
        page=_Heading(_title(result, severities)),
        result=result,
        severities=severities,
        whole_set=[f for f in listed if f.pair == _WHOLE_SET],
        flagged=[
            FlaggedPair(pair, found, _images(root, files, pair, found))
            for pair, found in islice(by_pair.items(), MAX_PAIRS)
        ],
        others=[f for found in islice(by_pair.values(), MAX_PAIRS, None) for f in found],
        num_left_out=len(result.findings) - len(listed),
        checks=[(check, check.requirement, counts[check.name]) for check in suite],
    )
    return write_atomically(target, html)


def _title(result: ValidationResult, severities: Mapping[str, int]) -> str:
    counts = ", ".join(
        f"{number} {kind}{'s' if kind == 'warning' and number != 1 else ''}"
        for kind in ("critical", "warning")
        if (number := severities.get(kind, 0))
    )
    outcome = "passed" if result.passed else "blocked"
    return f"Data {outcome}: {sum(result.num_pairs.values())} pairs, {counts or 'no findings'}"


def _by_pair(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """In the order of the findings: pairs with a critical one first."""
    found: dict[str, list[Finding]] = {}
    for finding in findings:
        if finding.pair != _WHOLE_SET:
            found.setdefault(finding.pair, []).append(finding)
    return found


def _images(
    root: Path, files: Files, pair: str, findings: Sequence[Finding]
) -> dict[str, Mapping[str, str | None]]:
    named = {finding.other for finding in findings if finding.other}
    shown = {"": pair} | {other: other for other in sorted(named - {pair})}
    return {
        name: dict(_views(root, files[one]))
        for name, one in shown.items()
        if one in files and files[one]["kind"] not in _NO_PAIR
    }


def _views(root: Path, row: Mapping[Any, object]) -> Iterator[tuple[str, str | None]]:
    for side in SIDES:
        small = _small(root, row[side])
        yield side, _uri(small) if small is not None else None
        if side == "low" and small is not None:
            yield "low, brightened", _uri(_stretched(small))


def _small(root: Path, relative: object) -> Image.Image | None:
    if not isinstance(relative, str):
        return None
    try:
        image = decode((root / relative).read_bytes(), name=relative)
    except (ImageError, OSError):
        return None  # a finding says why
    small = Image.fromarray(to_8_bit(image.pixels))
    small.thumbnail((_SIDE, _SIDE))
    return small


def _stretched(image: Image.Image) -> Image.Image:
    """Makes the content of a dark image visible."""
    values = np.asarray(image, np.float32)
    top = max(1.0, float(np.percentile(values, 99.5)))
    return Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8))


def _uri(image: Image.Image) -> str:
    return data_uri(image, "JPEG", quality=_QUALITY)
