"""Detection of references of the same scene, independent of encoding, size and crop.

Two steps: thumbnails of several crops against all whole thumbnails by one matrix product, then a
search for the best fitting box for the few likely matches.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from mirnet.data.measures import THUMB_SIDE

Vectors = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]

TWIN = 0.92
"""Correlation from which two thumbnails are of one scene; derived in docs/benchmarks/data.md."""
DETAIL = 0.6
"""Minimum correlation of their details: a bright sky over dark ground is no scene of its own."""
_DETAIL_SIGMA = 3.0
_LIKELY = 0.75
_NEIGHBOURS = 4
_COARSE, _FINE = 16, 32
_BLOCK = 1024
_WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


def find_twins(thumbs: Sequence[bytes]) -> list[tuple[int, int]]:
    """Pairs of thumbnails (64x64 luminance) of the same scene; each index at most a few times.

    Finds re-encoded and resized images, and crops that keep 85 % of either axis.
    """
    if len(thumbs) < 2:
        return []
    every = _Thumbnails(thumbs)
    twins = {
        (min(inner, outer), max(inner, outer))
        for inner, outer in _likely(every.crops, every.crops, own=True)
        if every.similarity(inner, every, outer) >= TWIN
    }
    return sorted(twins)


def find_shared(first: Sequence[bytes], second: Sequence[bytes]) -> dict[tuple[int, int], float]:
    """Thumbnails of the same scene in two sets: correlation by the indices in both.

    Finds what :func:`find_twins` does; each index is met at most a few times.
    """
    if not first or not second:
        return {}
    one, other = _Thumbnails(first), _Thumbnails(second)
    found: dict[tuple[int, int], float] = {}
    for inner, outer in _likely(one.crops, other.crops):
        found[inner, outer] = one.similarity(inner, other, outer)
    for inner, outer in _likely(other.crops, one.crops):
        here = other.similarity(inner, one, outer)
        found[outer, inner] = max(here, found.get((outer, inner), -1.0))
    return {couple: value for couple, value in sorted(found.items()) if value >= TWIN}


def similarity(first: bytes, second: bytes) -> float:
    """Correlation of two thumbnails, the best over crops of either."""
    both = _Thumbnails([first, second])
    return max(both.similarity(0, both, 1), both.similarity(1, both, 0))


class _Thumbnails:
    """Thumbnails and the vectors of their crops."""

    def __init__(self, thumbs: Sequence[bytes]) -> None:
        self._images = [_unpacked(thumb) for thumb in thumbs]
        self.crops = np.stack([_crops(image) for image in self._images])

    def similarity(self, inner: int, others: _Thumbnails, outer: int) -> float:
        """Correlation of one thumbnail with the part of another that fits it best."""
        box = _BOXES[int((others.crops[outer] @ self.crops[inner, 0]).argmax())]
        return _fit(others._images[outer], self._images[inner], box)


def clusters(count: int, links: Sequence[tuple[int, int]]) -> npt.NDArray[np.intp]:
    """Cluster number of each of ``count`` items connected by ``links``."""
    first, second = ([link[side] for link in links] for side in (0, 1))
    graph = coo_array((np.ones(len(links)), (first, second)), shape=(count, count))
    return np.asarray(connected_components(graph, directed=False)[1], np.intp)


def _boxes() -> tuple[Box, ...]:
    places = [(x, y) for y in (0.0, 0.5, 1.0) for x in (0.0, 0.5, 1.0)]
    crops = [
        (x * (1 - side), y * (1 - side), x * (1 - side) + side, y * (1 - side) + side)
        for side in (0.96, 0.92, 0.88, 0.84)
        for x, y in places
    ]
    return (_WHOLE, *crops)


_BOXES = _boxes()


def _unpacked(thumb: bytes) -> npt.NDArray[np.float32]:
    shape = (THUMB_SIDE, THUMB_SIDE)
    return np.frombuffer(thumb, np.uint8).reshape(shape).astype(np.float32)


def _crops(image: npt.NDArray[np.float32]) -> Vectors:
    return np.stack([_vector(image, box, _COARSE) for box in _BOXES])


def _vector(image: npt.NDArray[np.float32], box: Box, side: int) -> Vectors:
    """A part of a thumbnail as a vector of mean 0 and length 1: dot products are correlations."""
    left, top, right, bottom = (THUMB_SIDE * edge for edge in box)
    part = Image.fromarray(image).resize(
        (side, side), Image.Resampling.BILINEAR, box=(left, top, right, bottom)
    )
    vector = np.asarray(part, np.float32).ravel()
    vector = vector - vector.mean()
    return np.asarray(vector / (np.linalg.norm(vector) + 1e-6), np.float32)


def _likely(inner: Vectors, outer: Vectors, *, own: bool = False) -> list[tuple[int, int]]:
    """(index in inner, in outer) where some crop of the outer resembles all of the inner.

    ``own``: both are the same set, and no image is compared with itself.
    """
    count, num_boxes, _ = outer.shape
    keep = min(_NEIGHBOURS, count - 1 if own else count)
    couples: list[tuple[int, int]] = []
    for start in range(0, len(inner), _BLOCK):
        rows = inner[start : start + _BLOCK, 0]
        best = rows @ outer[:, 0].T
        for box in range(1, num_boxes):
            np.maximum(best, rows @ outer[:, box].T, out=best)
        if own:
            diagonal = np.arange(len(rows))
            best[diagonal, start + diagonal] = -1
        nearest = np.argpartition(-best, keep - 1, axis=1)[:, :keep]
        likely = np.take_along_axis(best, nearest, axis=1) >= _LIKELY
        couples += [(start + int(row), int(nearest[row, k])) for row, k in np.argwhere(likely)]
    return couples


def _fit(outer: npt.NDArray[np.float32], inner: npt.NDArray[np.float32], start: Box) -> float:
    """Correlation of ``inner`` with the part of ``outer`` that fits it best, edge by edge.

    Of their details alone where those do not resemble each other.
    """
    target = _vector(inner, _WHOLE, _FINE)
    box = start
    best = float(target @ _vector(outer, box, _FINE))
    step = 0.04
    while step >= 0.01 and best < 0.995:
        before = best
        for edge in range(4):
            for move in (-step, step):
                moved = list(box)
                moved[edge] = min(1.0, max(0.0, moved[edge] + move))
                left, top, right, bottom = moved
                if right - left < 0.7 or bottom - top < 0.7:
                    continue
                here = (left, top, right, bottom)
                similarity = float(target @ _vector(outer, here, _FINE))
                if similarity > best:
                    best, box = similarity, here
        if best == before:
            step /= 2
        if best < 0.6:
            break
    details = float(_detail(target) @ _detail(_vector(outer, box, _FINE)))
    return best if details >= DETAIL else min(best, details)


def _detail(vector: Vectors) -> Vectors:
    """Without coarse light and shade: less its blurred form, of length 1."""
    image = vector.reshape(_FINE, _FINE)
    detail = (image - gaussian_filter(image, _DETAIL_SIGMA, mode="nearest")).ravel()
    return np.asarray(detail / (np.linalg.norm(detail) + 1e-6), np.float32)
