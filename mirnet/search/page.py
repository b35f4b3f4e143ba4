"""The page of a search: one HTML file that works offline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.evaluation.charts import CostPoint, quality_against_cost
from mirnet.images.thumbnails import data_uri
from mirnet.pages import template
from mirnet.search.outcome import (
    Outcome,
    SearchResult,
    gmac,
    pareto_front,
    seconds_per_megapixel,
)
from mirnet.search.rows import DEFAULT, EPOCHS, Plan, Trial

_LONGEST_SIDE = 400
_QUALITY = 85

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Shown:
    """A validation pair and what the best trials make of it, by caption."""

    pair_id: str
    images: Mapping[str, Pixels]


@dataclass(frozen=True)
class _Page:
    title: str


@dataclass(frozen=True)
class _Row:
    trial: Trial
    on_front: bool
    is_winner: bool


def render_search(
    target: Path,
    result: SearchResult,
    plan: Plan,
    trials: Sequence[Trial],
    shown: Sequence[Shown],
) -> Path:
    """Write the page; ``trials`` are all that were begun, of both seeds."""
    outcome = Outcome.of(trials, plan)
    front = pareto_front(outcome.ranked, gmac)
    first = [trial for trial in trials if trial.seed == plan.train_seed]
    others = [trial for trial in first if trial not in outcome.ranked]
    rows = [
        _Row(trial, trial in front, trial == outcome.winner)
        for trial in (*outcome.ranked, *sorted(others, key=lambda t: -(t.psnr or 0.0)))
    ]
    html = template("search/search.html").render(
        page=_Page(f"Search {plan.name}"),
        result=result,
        plan=plan,
        begun=[(state, count) for state, count in result.trials.items() if count],
        rows=rows,
        again=[
            (trial, outcome.again.get(trial.number))
            for trial in (outcome.winner, outcome.default)
            if trial is not None and outcome.again
        ],
        charts=[
            _chart(outcome, gmac, "GMAC of a 400x600 image"),
            _chart(
                outcome,
                seconds_per_megapixel,
                f"seconds per megapixel, {plan.threads} thread{'s' * (plan.threads > 1)}",
            ),
        ]
        if outcome.ranked
        else [],
        pairs=[
            (each.pair_id, [(caption, _uri(pixels)) for caption, pixels in each.images.items()])
            for each in shown
        ],
        space=yaml.safe_dump(plan.space.model_dump(mode="json"), sort_keys=False),
        epochs=EPOCHS,
    )
    return write_atomically(target, html)


def _chart(outcome: Outcome, cost: Callable[[Trial], float | None], label: str) -> Markup:
    front = pareto_front(outcome.ranked, cost)
    points = [
        CostPoint(
            found, trial.psnr or 0.0, str(trial.number), trial in front, trial.number == DEFAULT
        )
        for trial in outcome.ranked
        if (found := cost(trial)) is not None
    ]
    return Markup(quality_against_cost(points, cost=label, quality="validation PSNR, dB"))


def _uri(pixels: Pixels) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))  # never enlarges
    return data_uri(image, "WEBP", quality=_QUALITY)
