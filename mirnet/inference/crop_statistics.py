"""Global statistics over crops spread over a large image.

The crops run through the network as one batch in which every global average is taken over all
of them. The difference to the same crops at a smaller scale corrects the statistics of a downscaled
copy of the image (control variates). Chosen by measurement, see
docs/benchmarks/large-images.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.images import Pixels
from mirnet.inference.pixels import as_image
from mirnet.models.layers.pooling import (
    FULL_IMAGE,
    GlobalPooling,
    correlated,
    histogram,
    pooled,
)
from mirnet.models.margin import extended
from mirnet.models.registry import Architecture

CROP = 256
# pixels at the border of a crop see its zero padding; they are left out of the averages
MARGIN = 32
# as far as they fit into the image; more for copies that are downscaled by SMALL_COPY or more:
# docs/benchmarks/large-images.md
MIN_CROPS = 12
MIN_CROPS_OF_SMALL_COPY = 24
SMALL_COPY = 2.3
SHARE_OF_CROPS = 0.13  # of the pixels of a larger image

Statistics = Callable[[Tensor, GlobalPooling], list[Tensor]]


def estimated_statistics(
    pixels: Pixels, of: Statistics, *, entry: Architecture, max_pixels: int
) -> list[Tensor]:
    """Estimated global statistics of an image that exceeds ``max_pixels``, float32.

    The statistics of a downscaled copy, corrected by the mean difference between full scale
    and the scale of the copy over crops spread over the image. Accuracy:
    docs/benchmarks/large-images.md.

    Args:
        pixels: (H, W, 3) uint8 or uint16.
        of: runs the network on a batch (N, 3, H', W') with a source of statistics, and gives them.
        max_pixels: of a batch.
    """
    height, width = pixels.shape[:2]
    factor = downscaling(height, width, max_pixels=max_pixels, margin=entry.margin)
    copied = of(downscaled(pixels, factor, entry, margin=entry.margin), FULL_IMAGE)
    total = [value.float() for value in copied]
    if factor == 1:
        return total
    sides = min(CROP, height), min(CROP, width)
    least = MIN_CROPS if factor < SMALL_COPY else MIN_CROPS_OF_SMALL_COPY
    count = max(least, int(height * width * SHARE_OF_CROPS / (sides[0] * sides[1])))
    corners = crop_corners(height, width, count=count, sides=sides)
    num_batches = -(-len(corners) // crops_at_once(max_pixels, sides[0] * sides[1]))
    for part in range(num_batches):
        spread = corners[part::num_batches]  # each batch over the whole image
        crops = [pixels[y : y + sides[0], x : x + sides[1]] for y, x in spread]
        for sign, scale in ((1, 1.0), (-1, factor)):
            batch = torch.cat([downscaled(crop, scale, entry) for crop in crops])
            share = sign * len(crops) / len(corners)
            values = of(batch, MosaicStatistics())
            total = [a + b.float() * share for a, b in zip(total, values, strict=True)]
    return total


def downscaled(pixels: Pixels, factor: float, entry: Architecture, *, margin: int = 0) -> Tensor:
    """(H, W, 3) -> about (1, 3, H / factor, W / factor), averaged over areas, with a margin."""
    image = as_image(pixels)
    if factor > 1:
        size = (max(int(side / factor), 1) for side in pixels.shape[:2])
        image = F.interpolate(image, tuple(size), mode="area")
    return extended(image, margin=margin, multiple=entry.size_multiple, least=entry.min_size)


class MosaicStatistics(GlobalPooling):
    """Averages over all crops of a batch, without their margins."""

    def mean(self, *streams: Tensor) -> Tensor:
        total = _inner(streams[0]).mean(dim=(0, 2, 3), keepdim=True)
        for stream in streams[1:]:
            total = total + _inner(stream).mean(dim=(0, 2, 3), keepdim=True)
        return total

    def attention_pool(self, x: Tensor, scores: Tensor, *, heads: int = 1) -> Tensor:
        return pooled(_flat(x), _flat(scores), heads)

    def correlation(self, a: Tensor, b: Tensor, *, heads: int) -> Tensor:
        return correlated(_flat(a), _flat(b), heads)

    def histogram(self, image: Tensor) -> Tensor:
        return histogram(_flat(image))


def _flat(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (1, C, N * pixels without margins)."""
    return _inner(x).transpose(0, 1).flatten(1)[None]


def _inner(x: Tensor) -> Tensor:
    """Without the margins, scaled to the map; thin crops keep them."""
    rows, columns = (size * MARGIN // CROP for size in x.shape[2:])
    return x[:, :, rows : x.shape[2] - rows, columns : x.shape[3] - columns]


def crop_corners(
    height: int, width: int, *, count: int, sides: tuple[int, int] = (CROP, CROP)
) -> npt.NDArray[np.int64]:
    """Top-left corners, (n, 2), of crops evenly spread over the image.

    At least ``count`` of them, or as many as cover the image, if fewer.
    """
    crop_height, crop_width = sides
    max_rows, max_columns = -(-height // crop_height), -(-width // crop_width)
    rows = min(max(round((count * height / width) ** 0.5), 1), max_rows)
    columns = min(-(-count // rows), max_columns)
    rows = min(-(-count // columns), max_rows)
    tops = _spread(height - crop_height, rows)
    lefts = _spread(width - crop_width, columns)
    return np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)


def _spread(last: int, count: int) -> npt.NDArray[np.int64]:
    if count == 1:
        return np.array([last // 2])
    return np.linspace(0, last, count).astype(np.int64)


def downscaling(height: int, width: int, *, max_pixels: int, margin: int) -> float:
    """The downscaling factor, at least 1, for an image and its margin to have ``max_pixels``."""
    # of (s height + 2 margin) (s width + 2 margin) = max_pixels, the s above 0
    area, half = height * width, margin * (height + width)
    s = (math.sqrt(half**2 + area * (max_pixels - 4 * margin**2)) - half) / area
    return max(1 / s, 1.0)


def crops_at_once(max_pixels: int, crop_pixels: int) -> int:
    """Crops per pass within so many pixels; at least 1."""
    return max(max_pixels // crop_pixels, 1)
