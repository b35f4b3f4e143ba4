"""What people see of a night in Prefect: progress while it runs, then counts, worst cases, drift,
and images before and after.
"""

from __future__ import annotations

import time
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from flows.safety import markdown_text
from flows.tables import Row, vertical
from mirnet.redaction import shown
from mirnet.results import EnhanceResult, ImageFate

_EVERY_S = 10.0


class NightProgress:
    """Called after each image; tells Prefect every ten seconds. Only inside a task."""

    def __init__(self) -> None:
        self._begun = self._told = time.monotonic()
        self._artifact: UUID | None = None

    def __call__(self, done: int, todo: int) -> None:
        """``done`` of ``todo`` images have ended."""
        if not done:
            return
        now = time.monotonic()
        if now - self._told < _EVERY_S and done < todo:
            return
        self._told = now
        rate = done / max(now - self._begun, 1e-3)
        text = f"{done} of {todo} images, {rate:.1f} a second, {(todo - done) / rate:.0f} s left"
        get_run_logger().info("%s", text)
        try:
            self._show(100.0 * done / todo, text)
        except (httpx.HTTPError, PrefectException) as error:
            # a night must not end because nobody can look at it
            get_run_logger().warning("no progress artifact: %s", error)

    def _show(self, percent: float, text: str) -> None:
        if self._artifact is None:
            made = create_progress_artifact(percent, key="enhance-progress", description=text)
            assert isinstance(made, UUID)
            self._artifact = made
        else:
            update_progress_artifact(self._artifact, percent, description=text)


def show_night(result: EnhanceResult, contact: str | None, *, drift_distance: float) -> None:
    """Artifacts of a night that has ended.

    Args:
        contact: the page of before and after, as HTML.
        drift_distance: from which a column counts as drifted.
    """
    where = markdown_text(f"{result.source} -> {result.target}")
    if result.held_by:
        create_markdown_artifact(
            key="enhance", markdown=markdown_text(result.held_by), description=where
        )
        return
    create_table_artifact(
        key="enhance", table=vertical({"value": _figures(result)}), description=where
    )
    if result.worst:
        create_table_artifact(
            key="enhance-worst",
            table=[_worst_row(each) for each in result.worst],
            description=f"{where}: not enhanced or kept as they were, then the darkest results. "
            "Brightness: mean luminance of input and output, 0 to 1",
        )
    if result.drift:
        create_table_artifact(
            key="enhance-drift",
            table=[
                {
                    "column": column,
                    "distance": distance,
                    "limit": drift_distance,
                    "drifted": column in result.drifted,
                    "reason": result.drift_reasons.get(column, ""),
                }
                for column, distance in result.drift.items()
            ],
            description=f"{where}: inputs against the model's training data",
        )
    if contact is not None:
        create_markdown_artifact(
            key="enhance-contact", markdown=_as_markdown(contact), description=where
        )


def _as_markdown(contact: str) -> str:
    """The body, whose images are in it as data; Prefect shows headings of HTML as plain text."""
    body = contact.partition("</h1>")[2]
    return body.replace("<h2>", "\n\n### ").replace("</h2>", "\n\n")


_NO_FIGURES = frozenset(
    {"source", "target", "cost", "worst", "held_by", "picture"}
    | {"drift", "drifted", "drift_reasons", "passed_over", "harm", "reasons"}
)


def _figures(result: EnhanceResult) -> dict[str, object]:
    passed_over = ", ".join(f"{why} {n}" for why, n in result.passed_over.items())
    return (
        # what a person looks for first
        ({"problem": result.problem} if result.problem else {})
        | result.model_dump(exclude=set(_NO_FIGURES))
        | {"passed_over": passed_over or None}
        | {f"harm/{kind}": number for kind, number in result.harm.items()}
        | (result.cost.metrics() if result.cost else {})
    )


def _worst_row(image: ImageFate) -> Row:
    before, after = image.luminance_before, image.luminance_after
    return {
        "input": shown(image.input),
        "fate": image.fate,
        "reason": shown(image.reason or ""),
        "brightness": f"{before:.2f} -> {after:.2f}" if before and after else "",
    }
