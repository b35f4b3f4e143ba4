"""The page of a comparison of two models: one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.evaluation import charts
from mirnet.evaluation.comparison import MIN_IMAGES, Comparison, MetricDifference
from mirnet.images.thumbnails import data_uri
from mirnet.pages import template

LONGEST_SIDE = 1600
"""Images up to this size are shown pixel by pixel."""
_WEBP_QUALITY = 92
_SIDES = {"low": "dark input", "high": "reference"}


@dataclass(frozen=True)
class Differs:
    """A parameter, tag or version in which the runs of the models differ."""

    name: str
    first: str
    second: str


@dataclass(frozen=True)
class ComparisonPage:
    """What the page says beside the comparison.

    Attributes:
        facts: name and value, such as the data version and the runs.
        note: what is missing or to be known, such as why there are no images.
    """

    first: str
    second: str
    facts: Mapping[str, str] = field(default_factory=dict)
    differs: Sequence[Differs] = ()
    note: str = ""

    @property
    def title(self) -> str:
        """For the heading and the tab of a browser."""
        return f"{self.first} against {self.second}"


@dataclass(frozen=True)
class ComparedPair:
    """Images of a pair, all (H, W, 3) uint8 of one size."""

    low: NDArray[np.uint8]
    first: NDArray[np.uint8]
    second: NDArray[np.uint8]
    high: NDArray[np.uint8]


@dataclass(frozen=True)
class _Entry:
    pair_id: str
    reasons: str
    size: str
    scale: str
    scores: Mapping[str, object]
    images: Mapping[str, str]


def render_comparison(
    target: Path,
    page: ComparisonPage,
    comparison: Comparison,
    pairs: Mapping[str, ComparedPair],
) -> Path:
    """Write the page.

    Args:
        pairs: those of ``comparison.picks()`` whose images there are, by id.
    """
    html = template("evaluation/comparison.html").render(
        page=page,
        verdict=verdict(page.first, page.second, comparison.psnr),
        comparison=comparison,
        entries=_entries(page, comparison, pairs),
        chart=Markup(
            charts.differences(
                comparison.images["difference"].tolist(),
                label=f"PSNR of {page.first} minus {page.second}, dB",
            )
        ),
        images=comparison.images.to_dict("records"),
        min_images=MIN_IMAGES,
        quality=_WEBP_QUALITY,
    )
    return write_atomically(target, html)


def verdict(first: str, second: str, psnr: MetricDifference) -> str:
    """The comparison in one sentence."""
    gain, images = psnr.difference, psnr.difference.num_images
    counts = f"better on {psnr.first_better} of {images} images, worse on {psnr.second_better}"
    if images < MIN_IMAGES:
        return (
            f"{images} images are too few to compare: {first} minus {second} is {gain.mean:+.2f} "
            f"dB PSNR, {counts}."
        )
    if psnr.winner is None:
        return (
            f"No difference shown: {first} minus {second} is {gain} PSNR, and zero is inside the "
            f"interval; {first} is {counts}."
        )
    better, worse = (first, second) if psnr.winner == 0 else (second, first)
    return (
        f"{better} is better than {worse}: {first} minus {second} is {gain} PSNR; {first} is "
        f"{counts}."
    )


def _entries(
    page: ComparisonPage, comparison: Comparison, pairs: Mapping[str, ComparedPair]
) -> list[_Entry]:
    rows = {str(row["pair_id"]): row for row in comparison.images.to_dict("records")}
    entries = []
    for pair_id, reasons in comparison.picks().items():
        if pair_id not in pairs:
            continue
        pair = pairs[pair_id]
        height, width = pair.low.shape[:2]
        shrunk = max(height, width) / LONGEST_SIDE
        labelled = {
            _SIDES["low"]: pair.low,
            page.first: pair.first,
            page.second: pair.second,
            _SIDES["high"]: pair.high,
        }
        entries.append(
            _Entry(
                pair_id=pair_id,
                reasons="; ".join(r.format(page.first, page.second) for r in reasons),
                size=f"{width}x{height}",
                scale="native size" if shrunk <= 1 else f"shown at {100 / shrunk:.0f} %",
                scores={str(k): v for k, v in rows[pair_id].items()},
                images={name: _uri(pixels) for name, pixels in labelled.items()},
            )
        )
    return entries


def _uri(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))  # never enlarges
    return data_uri(image, "WEBP", quality=_WEBP_QUALITY)
