"""Exact global statistics of an image, added up over its tiles.

One pass over the tiles collects one stage: the statistics that depend on earlier stages alone. Each
pixel of the network's input, margin included, counts once, so the totals are those of the whole
image up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from mirnet.inference.tiles import Part
from mirnet.models.layers.pooling import GivenPooling, GlobalPooling, cosines, level_counts


class StageCollectedError(Exception):
    """Ends a pass: it is no failure, but the rest of the network is not needed."""


@dataclass(frozen=True)
class Window:
    """The part of a tile that counts, in pixels of the network's input."""

    rows: slice
    columns: slice
    sides: tuple[int, int]

    @property
    def area(self) -> int:
        return len(range(self.sides[0])[self.rows]) * len(range(self.sides[1])[self.columns])

    def of(self, x: Tensor) -> Tensor:
        """That part of a map (N, C, H, W) of the tile, at any scale."""
        rows, columns = (
            slice(part.start * side // whole, part.stop * side // whole)
            for part, side, whole in zip(
                (self.rows, self.columns), x.shape[2:], self.sides, strict=True
            )
        )
        return x[:, :, rows, columns]


def counted_once(tile: Part, sides: Sequence[int], *, image: Sequence[int], margin: int) -> Window:
    """What a tile writes, and at the border of the image the margin that it reads beyond.

    Args:
        sides: height and width of the tile as read.
        image: height and width of the whole image.
    """
    rows, columns = (
        slice(
            0 if span.start == -margin else span.keep_start - span.start,
            side if span.keep_stop == size else span.keep_stop - span.start,
        )
        for span, side, size in zip(tile, sides, image[:2], strict=True)
    )
    return Window(rows, columns, (sides[0], sides[1]))


class Total(Protocol):
    """A statistic of the tiles so far."""

    def value(self) -> Tensor:
        """As the method of :class:`GlobalPooling` gives it."""


T = TypeVar("T", bound=Total)


class MeanTotal:
    """Sums of maps, weighted by the area of the tiles: maps of a sum may differ in scale."""

    def __init__(self) -> None:
        self._total: Tensor | float = 0.0
        self._area = 0

    def add(self, window: Window, streams: Sequence[Tensor]) -> None:
        for stream in streams:
            mean = window.of(stream).mean(dim=(2, 3), keepdim=True, dtype=torch.float64)
            self._total = self._total + window.area * mean
        self._area += window.area

    def value(self) -> Tensor:
        assert isinstance(self._total, Tensor)
        return (self._total / self._area).float()


class AttentionTotal:
    """Numerators and denominators of softmaxes, relative to the maximum so far (online softmax)."""

    def __init__(self) -> None:
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, window: Window, x: Tensor, scores: Tensor, *, heads: int) -> None:
        n, c = x.shape[:2]
        self._channels = n, c
        scores, x = (window.of(each).flatten(2).float() for each in (scores, x))
        maximum = scores.amax(2, keepdim=True)
        weights = (scores - maximum).exp()
        by_head = weights.reshape(n * heads, -1, weights.shape[2])
        # (N heads, Q, C / heads), and (N heads, Q, 1) for the others
        numerator = by_head @ x.reshape(n * heads, c // heads, -1).transpose(1, 2)
        maximum = maximum.reshape(n * heads, -1, 1).double()
        found = maximum, numerator.double(), by_head.sum(2, keepdim=True, dtype=torch.float64)
        self._sums = found if self._sums is None else _merged(self._sums, found)

    def value(self) -> Tensor:
        assert self._sums is not None
        _, numerator, denominator = self._sums
        return (numerator / denominator).transpose(1, 2).reshape(*self._channels, -1, 1).float()


def _merged(
    first: tuple[Tensor, Tensor, Tensor], second: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    maximum = torch.maximum(first[0], second[0])
    factors = [(part[0] - maximum).exp() for part in (first, second)]
    numerator, denominator = (first[n] * factors[0] + second[n] * factors[1] for n in (1, 2))
    return maximum, numerator, denominator


class CorrelationTotal:
    """Scalar products between channels, and their squared lengths."""

    def __init__(self) -> None:
        self._sums: tuple[Tensor, ...] | None = None

    def add(self, window: Window, a: Tensor, b: Tensor, *, heads: int) -> None:
        n = a.shape[0]
        parts = (window.of(x).flatten(2).float() for x in (a, b))
        a, b = (x.reshape(n, heads, -1, x.shape[2]) for x in parts)
        found = (
            (a @ b.transpose(2, 3)).double(),
            *(x.square().sum(3, dtype=torch.float64) for x in (a, b)),
        )
        before = self._sums or (torch.zeros_like(part) for part in found)
        self._sums = tuple(old + new for old, new in zip(before, found, strict=True))

    def value(self) -> Tensor:
        assert self._sums is not None
        products, squares_a, squares_b = self._sums
        return cosines(products, squares_a.sqrt(), squares_b.sqrt()).float()


class HistogramTotal:
    """Counts of levels."""

    def __init__(self) -> None:
        self._counts: Tensor | float = 0.0
        self._pixels = 0

    def add(self, window: Window, image: Tensor) -> None:
        flat = window.of(image).flatten(2)
        self._counts = self._counts + level_counts(flat)
        self._pixels += flat.shape[2]

    def value(self) -> Tensor:
        assert isinstance(self._counts, Tensor)
        return (self._counts / self._pixels)[..., None]


class Stage:
    """The totals of one stage.

    Args:
        known: statistics of the earlier stages.
        count: statistics of this stage.
    """

    def __init__(self, known: Sequence[Tensor], count: int) -> None:
        self.known = known
        self.count = count
        self._totals: list[Total] = []

    def values(self) -> list[Tensor]:
        """The statistics of this stage, of all tiles so far, in order of use."""
        return [total.value() for total in self._totals]

    def total(self, number: int, kind: Callable[[], T]) -> T:
        """The total of a statistic of this stage, which starts at its first tile."""
        if number == len(self._totals):
            self._totals.append(kind())
        found: T = self._totals[number]  # type: ignore[assignment]
        return found


class TilePooling(GlobalPooling):
    """Adds the statistics of one tile to those of a stage; earlier stages are given.

    Raises:
        StageCollectedError: from the network's pass, once the last statistic of the stage is added.
    """

    def __init__(self, stage: Stage, window: Window, frame: Tensor | None) -> None:
        self._stage, self._window, self._frame = stage, window, frame
        self._given = GivenPooling(stage.known)
        self._taken = 0

    @property
    def frame(self) -> Tensor | None:
        return self._frame

    def mean(self, *streams: Tensor) -> Tensor:
        number = self._next()
        if number < 0:
            return self._given.mean(*streams)
        total = self._stage.total(number, MeanTotal)
        total.add(self._window, streams)
        return self._so_far(total, streams[0].dtype)

    def attention_pool(self, x: Tensor, scores: Tensor, *, heads: int = 1) -> Tensor:
        number = self._next()
        if number < 0:
            return self._given.attention_pool(x, scores, heads=heads)
        total = self._stage.total(number, AttentionTotal)
        total.add(self._window, x, scores, heads=heads)
        return self._so_far(total, x.dtype)

    def correlation(self, a: Tensor, b: Tensor, *, heads: int) -> Tensor:
        number = self._next()
        if number < 0:
            return self._given.correlation(a, b, heads=heads)
        total = self._stage.total(number, CorrelationTotal)
        total.add(self._window, a, b, heads=heads)
        return self._so_far(total, a.dtype)

    def histogram(self, image: Tensor) -> Tensor:
        number = self._next()
        if number < 0:
            return self._given.histogram(image)
        total = self._stage.total(number, HistogramTotal)
        total.add(self._window, image)
        return self._so_far(total, torch.float64)

    def _next(self) -> int:
        """Number of the next statistic within the stage; negative: it is known."""
        self._taken += 1
        return self._taken - 1 - len(self._stage.known)

    def _so_far(self, total: Total, dtype: torch.dtype) -> Tensor:
        """What the network goes on with, though nothing of this stage depends on it."""
        if self._taken == len(self._stage.known) + self._stage.count:
            raise StageCollectedError
        return total.value().to(dtype)
