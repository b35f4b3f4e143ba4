"""Bilinear resizing with aligned corners.

The first and the last pixel of both maps coincide, so the distance of samples is not the ratio of
the sizes, and their places in a tile depend on where it lies in the whole image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def aligned_resize(x: Tensor, height: int, width: int, *, frame: Tensor | None) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width), a part of the map of the whole image as resized.

    Args:
        frame: first row, first column, height and width of the whole image, in pixels of ``x``;
            none: ``x`` is the whole image. The first row and column of the result lie at multiples
            of the ratio of the sizes.
    """
    if frame is None:
        return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)
    x = _resized_axis(x, 2, height, start=frame[0], whole=frame[2])
    return _resized_axis(x, 3, width, start=frame[1], whole=frame[3])


def _resized_axis(x: Tensor, dim: int, length: int, *, start: Tensor, whole: Tensor) -> Tensor:
    size = x.shape[dim]
    ratio = length / size
    rows = start * ratio + torch.arange(length, device=x.device, dtype=start.dtype)
    distance = (whole - 1) / (whole * ratio - 1).clamp_min(1)
    places = (rows * distance - start).clamp(0, size - 1)
    low = places.floor()
    weight = (places - low).float().reshape([-1 if axis == dim else 1 for axis in range(4)])
    first = low.long()
    second = (first + 1).clamp_max(size - 1)
    before, after = (x.index_select(dim, index).float() for index in (first, second))
    return before.lerp(after, weight).to(x.dtype)
