"""Arrays of pixels and inputs of a network."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mirnet.inference.tiles import Part

P = TypeVar("P", bound=np.uint8 | np.uint16)


def as_image(pixels: npt.NDArray[P]) -> Tensor:
    """(H, W, 3) -> (1, 3, H, W) float32 in [0, 1]."""
    scaled = pixels.astype(np.float32)
    scaled /= np.iinfo(pixels.dtype).max
    return torch.from_numpy(scaled).permute(2, 0, 1)[None]


def as_pixels(image: Tensor, part: Part, dtype: np.dtype[P]) -> npt.NDArray[P]:
    """The written pixels of a part, (H, W, 3), from its output, (3, H', W')."""
    rows, columns = part
    kept = image[:, rows.kept_of_read, columns.kept_of_read]
    return (kept * int(np.iinfo(dtype).max)).round().permute(1, 2, 0).numpy().astype(dtype)
