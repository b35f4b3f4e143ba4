"""Padding to the sizes that the networks take."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pad_to_multiple(image: Tensor, *, multiple: int, least: int = 1) -> Tensor:
    """Grow (N, C, H, W) at the bottom and right to multiples, at least ``least``, by mirroring.

    Mirrors again where the image is smaller than its padding, so that 1x1 works.
    """
    height, width = (max(-(-size // multiple) * multiple, least) for size in image.shape[2:])
    while image.shape[2] < height or image.shape[3] < width:
        rows = min(height - image.shape[2], max(image.shape[2] - 1, 1))
        columns = min(width - image.shape[3], max(image.shape[3] - 1, 1))
        # a side of 1 has nothing to mirror
        mode = "reflect" if min(image.shape[2:]) > 1 else "replicate"
        image = F.pad(image, (0, columns, 0, rows), mode=mode)
    return image
