"""Global statistics over crops spread over a large image.

The crops run through the network as one batch in which every global average is taken over all
of them. The difference to the same crops at a smaller scale corrects the statistics of a downscaled
copy of the image (control variates). Chosen by measurement, see
docs/benchmarks/large-images.md.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mirnet.models.layers.pooling import GlobalPooling, correlated, histogram, pooled

CROP = 256
# pixels at the border of a crop see its zero padding; they are left out of the averages
MARGIN = 32


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
