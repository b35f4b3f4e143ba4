"""Tiles that cover an image."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

GRID = 4  # the coarsest pixel of MIRNet: tiles start on multiples of it


@dataclass(frozen=True)
class Span:
    """The range of a tile along one axis: what is read, and which part of it is written.

    A read may begin before the image and end behind it, where the image is mirrored.
    """

    start: int
    stop: int
    keep_start: int
    keep_stop: int

    @property
    def keep(self) -> slice:
        """The written range, in image coordinates."""
        return slice(self.keep_start, self.keep_stop)

    @property
    def kept_of_read(self) -> slice:
        """The written range, in tile coordinates."""
        return slice(self.keep_start - self.start, self.keep_stop - self.start)


# rows and columns
Part = tuple[Span, Span]


def spans(size: int, *, tile: int, halo: int, margin: int, grid: int = GRID) -> list[Span]:
    """Cover ``size`` pixels with reads of ``tile`` pixels that overlap by twice the halo.

    All reads have the same length (one shape, compiled once): the last one is moved inwards.
    Every pixel is kept once, at least ``halo`` from the end of its read, except at the image's
    own border, where it is the margin that the whole image has as well.
    """
    end = size + margin
    if end + margin <= tile:
        return [Span(-margin, end, 0, size)]
    assert tile % grid == halo % grid == margin % grid == 0 and tile > 2 * halo >= 2 * margin
    found = []
    kept = 0
    while kept < size:
        start = max(kept - halo, -margin)
        if start + tile >= end:
            start = -(-(end - tile) // grid) * grid
            found.append(Span(start, end, kept, size))
            break
        stop = start + tile
        found.append(Span(start, stop, kept, stop - halo))
        kept = stop - halo
    return found


def tile_shape(
    height: int, width: int, *, max_pixels: int, halo: int, margin: int, grid: int = GRID
) -> tuple[int, int]:
    """(height, width) of the tiles that cover an image with the fewest pixels read in all.

    Args:
        max_pixels: of a tile; enough for one of ``grid`` x ``grid`` pixels and its halo.
    """
    sides = height + 2 * margin, width + 2 * margin
    _, tile_height, tile_width = min(_coverings(*sides, max_pixels, halo, grid))
    return tile_height, tile_width


def _coverings(
    height: int, width: int, max_pixels: int, halo: int, grid: int
) -> Iterator[tuple[int, int, int]]:
    """Pixels read in all, and the tile, for each number of rows with the fewest columns."""
    for rows in itertools.count(1):
        tile_height = _side(height, rows, halo, grid)
        widest = max_pixels // tile_height // grid * grid
        fewest = max(-(-(width - 2 * halo) // max(widest - 2 * halo, grid)), 1)
        # more columns read more, but for the rounding of their width
        for columns in range(fewest, fewest + 3):
            tile_width = _side(width, columns, halo, grid)
            if tile_width <= widest:
                yield rows * columns * tile_height * tile_width, tile_height, tile_width
        if tile_height <= 2 * halo + grid:  # from here on more rows are not lower
            return


def _side(size: int, count: int, halo: int, grid: int) -> int:
    """The least side of so many tiles along an axis."""
    side = -(-(size + 2 * halo * (count - 1)) // count)
    return -(-side // grid) * grid


def tiles(
    height: int, width: int, *, max_pixels: int, halo: int, margin: int, grid: int = GRID
) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of every tile, row by row; all are of :func:`tile_shape`."""
    shape = tile_shape(height, width, max_pixels=max_pixels, halo=halo, margin=margin, grid=grid)
    for rows in spans(height, tile=shape[0], halo=halo, margin=margin, grid=grid):
        for columns in spans(width, tile=shape[1], halo=halo, margin=margin, grid=grid):
            yield rows, columns
