"""Sample images: fixed validation pairs, enhanced by the network of an epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from PIL import Image
from torch import Tensor

from mirnet.params import TrainParams
from mirnet.results import SamplePicture
from mirnet.training.data.pairs import PackedPairs, Pixels

_QUALITY = 90
_GAP = 4


def wanted(recipe: TrainParams, *, epoch: int, last: bool) -> bool:
    """Whether a validated epoch has sample images: every n-th validation, and the last."""
    if recipe.samples_every is None:
        return False
    return last or (epoch + 1) // recipe.validate_every % recipe.samples_every == 0


def chosen(num_pairs: int, num_samples: int) -> frozenset[int]:
    """Indices of the sample pairs, evenly spaced; the same in every epoch."""
    count = min(num_samples, num_pairs)
    return frozenset(number * num_pairs // count for number in range(count))


def pictures(epoch: int, pairs: PackedPairs, outputs: Mapping[int, Tensor]) -> list[SamplePicture]:
    """Sample images from enhanced ones, uint8 (1, 3, H, W) by index of the pair."""
    return [
        SamplePicture(epoch=epoch, pair=pairs.names[index], jpeg=_encode(pairs, index, output))
        for index, output in sorted(outputs.items())
    ]


def _encode(pairs: PackedPairs, index: int, output: Tensor) -> bytes:
    low, high = pairs.pair(index)
    enhanced: Pixels = output[0].permute(1, 2, 0).cpu().numpy().astype(np.uint8)
    gap = np.full((low.shape[0], _GAP, 3), 255, np.uint8)
    row = np.concatenate([low, gap, enhanced, gap, high], axis=1)
    target = io.BytesIO()
    Image.fromarray(row).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
