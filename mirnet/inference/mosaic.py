"""Global statistics of a large image from crops spread over it.

The crops run through the network as one batch in which every global average is taken over all
of them: an unbiased sample of what the whole image would give, in one pass, with bounded memory.
Chosen by measurement over a downscaled pass and over local statistics, see docs/inference.md.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mirnet.models.statistics import Statistics

CROP = 256
# pixels at the border of a crop see its zero padding; they are left out of the averages
MARGIN = 32


class MosaicStatistics(Statistics):
    """Averages over all crops of a batch, without their margins."""

    def mean(self, *streams: Tensor) -> Tensor:
        total = _inner(streams[0]).mean(dim=(0, 2, 3), keepdim=True)
        for stream in streams[1:]:
            total = total + _inner(stream).mean(dim=(0, 2, 3), keepdim=True)
        return total

    def attended(self, x: Tensor, scores: Tensor) -> Tensor:
        channels = x.shape[1]
        weights = _inner(scores).reshape(-1, 1).float().softmax(dim=0).to(x.dtype)
        columns = _inner(x).transpose(0, 1).reshape(channels, -1)
        return (columns @ weights).reshape(1, channels, 1, 1)


def _inner(x: Tensor) -> Tensor:
    margin = x.shape[2] * MARGIN // CROP
    return x[:, :, margin:-margin, margin:-margin]


def crop_corners(height: int, width: int, *, count: int) -> npt.NDArray[np.int64]:
    """Top-left corners, (n, 2), of about ``count`` crops evenly spread over the image."""
    rows = max(round((count * height / width) ** 0.5), 1)
    columns = max(round(count / rows), 1)
    tops = np.linspace(0, height - CROP, rows) if rows > 1 else np.array([(height - CROP) / 2])
    lefts = (
        np.linspace(0, width - CROP, columns) if columns > 1 else np.array([(width - CROP) / 2])
    )
    grid = np.stack(np.meshgrid(tops, lefts, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid.astype(np.int64)
