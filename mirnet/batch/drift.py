"""Drift of the inputs from the training data of the model.

A reference profile has one histogram per column,
``{"luminance": {"edges": [...], "share": [...]}}``, with one edge more than shares. The
outer bins are open. Compared by the chi-square test and the Jensen-Shannon distance of
scipy: the test shows that a difference is significant, the distance (0 same, 1 disjoint) that it is
large.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from mirnet.batch.manifest import Row
from mirnet.errors import UsageError, WeightsError, problem_of
from mirnet.images.stats import Measures

Profile = Mapping[str, Mapping[str, Sequence[float]]]
_MAX_BYTES = 1 << 20

COLUMNS = ("luminance", "dark_share", "bright_share", "noise", "saturation", "megapixels")
_MAX_P = 0.001
_FLOOR = 1e-3


_Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Histogram(BaseModel):
    edges: list[_Finite] = Field(min_length=2)
    share: list[_Finite] = Field(min_length=1)


_PROFILE = TypeAdapter(dict[str, _Histogram])


@dataclass(frozen=True, slots=True)
class ColumnDrift:
    """Drift of one column in one run. ``distance``: Jensen-Shannon, base 2, 0 to 1.

    ``reason``: why it counts as drifted or not, for people.
    """

    column: str
    num_images: int
    distance: float
    p_value: float
    drifted: bool
    reason: str = ""


@dataclass
class DriftMonitor:
    """Counts rows in the bins of a reference; constant memory.

    Raises:
        UsageError: the reference is not of the form above; names the column.
    """

    reference: Profile
    max_distance: float
    min_images: int
    _histograms: dict[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    _counts: dict[str, list[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for column, histogram in self.reference.items():
            if len(histogram.get("edges", ())) != len(histogram.get("share", ())) + 1:
                raise UsageError(f"reference profile: {column}: one edge more than shares is asked")
            if len(histogram["share"]) == 1:  # written before such profiles had open ends
                self._histograms[column] = _open_ended(histogram["edges"])
            else:
                self._histograms[column] = histogram
            self._counts[column] = [0] * len(self._histograms[column]["share"])

    def add(self, row: Row) -> None:
        for column, counts in self._counts.items():
            value = figure(row, column)
            if value is not None:
                inner = self._histograms[column]["edges"][1:-1]
                counts[bisect_right(inner, value)] += 1

    def result(self) -> list[ColumnDrift]:
        """One entry per column of the reference that the rows have."""
        return [
            self._compare(column, counts)
            for column, counts in self._counts.items()
            if sum(counts) > 0
        ]

    def _compare(self, column: str, counts: list[int]) -> ColumnDrift:
        from scipy.spatial.distance import jensenshannon
        from scipy.stats import chisquare

        number = sum(counts)
        # a bin that the training data left empty is rare, not impossible
        expected = np.maximum(np.asarray(self._histograms[column]["share"], float), _FLOOR)
        expected /= expected.sum()
        distance = float(jensenshannon(np.asarray(counts) / number, expected, base=2))
        p_value = float(chisquare(counts, expected * number).pvalue)
        drifted = number >= self.min_images and p_value < _MAX_P and distance > self.max_distance
        reason = self._reason(number, distance, p_value)
        return ColumnDrift(column, number, round(distance, 4), p_value, drifted, reason)

    def _reason(self, number: int, distance: float, p_value: float) -> str:
        if number < self.min_images:
            images = "1 image" if number == 1 else f"{number} images"
            return f"{images}, fewer than {self.min_images}: not judged"
        if distance <= self.max_distance:
            return f"no drift: distance {distance:.2f}, at most {self.max_distance:g} allowed"
        if p_value >= _MAX_P:
            return f"no drift: may be chance (p = {p_value:.2g}, at least {_MAX_P:g})"
        return f"drifted: distance {distance:.2f}, more than {self.max_distance:g}"


def read_profile(path: Path) -> Profile:
    """The reference in the file of a model folder.

    Raises:
        WeightsError: it is larger than 1 MiB or not of the form above; names the file.
    """
    with path.open("rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise WeightsError(f"{path}: larger than {_MAX_BYTES} bytes, which no profile is")
    try:
        read = _PROFILE.validate_json(content)
        profile: Profile = {column: found.model_dump() for column, found in read.items()}
        DriftMonitor(profile, max_distance=1.0, min_images=1)
    except ValidationError as error:
        raise WeightsError(f"{path}: {problem_of(error)}") from error
    except UsageError as error:
        raise WeightsError(f"{path}: {error}") from error
    return profile


def figure(row: Row, column: str) -> float | None:
    """The value of a column for a row; none where it was not measured or is not known."""
    if column == "luminance":
        return row.luminance_before
    if column == "megapixels":
        return row.width * row.height / 1e6 if row.width and row.height else None
    value = getattr(row, column, None)
    return float(value) if isinstance(value, int | float) else None


def build_profile(
    measured: Iterable[tuple[Measures, int, int]], *, num_bins: int = 10
) -> dict[str, dict[str, list[float]]]:
    """The reference of a set of images, from (measures, width, height) each.

    Bins hold equal shares where values differ enough, so that a test on few images is sound.
    """
    columns: dict[str, list[float]] = {}
    for measures, width, height in measured:
        for name, value in asdict(measures).items():
            columns.setdefault(name, []).append(value)
        columns.setdefault("megapixels", []).append(width * height / 1e6)
    return {name: _histogram(values, num_bins) for name, values in columns.items()}


def _histogram(values: list[float], num_bins: int) -> dict[str, list[float]]:
    edges = np.unique(np.quantile(values, np.linspace(0, 1, num_bins + 1)))
    if len(edges) <= 2:  # nearly all values are the same
        return _open_ended(edges.tolist())
    counts, _ = np.histogram(values, [-np.inf, *edges[1:-1], np.inf])
    return {"edges": edges.tolist(), "share": (counts / len(values)).tolist()}


def _open_ended(edges: Sequence[float]) -> dict[str, list[float]]:
    """Bins below, within and above the range of all values, which lie in the middle one."""
    least, most = float(edges[0]), float(edges[-1])
    margin = max(1e-6, max(abs(least), abs(most)) * 1e-3)
    outer = [least - 2 * margin, least - margin, most + margin, most + 2 * margin]
    return {"edges": outer, "share": [0.0, 1.0, 0.0]}
