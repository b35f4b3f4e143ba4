"""Which tiles cover an image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

GRID = 4  # the networks' coarsest pixel: tiles start on multiples of it


@dataclass(frozen=True)
class Span:
    """Along one axis: what a tile reads, and which part of that it writes."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def keep(self) -> slice:
        """What is written, in the image."""
        return slice(self.keep_start, self.keep_stop)

    @property
    def kept_of_read(self) -> slice:
        """What is written, in the tile."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


def spans(size: int, *, tile: int, halo: int) -> list[Span]:
    """Cover ``size`` pixels with reads of ``tile`` pixels that overlap by twice the halo.

    All reads have the same length (one shape, compiled once): the last one is moved inwards.
    Every pixel is kept once, at least ``halo`` from the end of its read, except at the image's
    own border, which the whole image has as well.
    """
    assert tile % GRID == 0 and halo % GRID == 0 and tile > 2 * halo
    if size <= tile:
        return [Span(0, size, 0, size)]
    found = []
    kept = 0
    while kept < size:
        start = max(kept - halo, 0)
        if start + tile >= size:
            start = -(-(size - tile) // GRID) * GRID
            found.append(Span(start, size, kept, size))
            break
        stop = start + tile
        found.append(Span(start, stop, kept, stop - halo))
        kept = stop - halo
    return found


def tiles(height: int, width: int, *, tile: int, halo: int) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of every tile, row by row."""
    for rows in spans(height, tile=tile, halo=halo):
        for columns in spans(width, tile=tile, halo=halo):
            yield rows, columns
