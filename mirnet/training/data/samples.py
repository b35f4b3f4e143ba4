"""Sample images: fixed validation pairs, enhanced by the network of an epoch."""

from __future__ import annotations

import io
from collections.abc import Mapping

from PIL import Image

from mirnet.images.thumbnails import side_by_side
from mirnet.params import TrainParams
from mirnet.results import SampleImage
from mirnet.training.data.pairs import PackedPairs, Pixels

_QUALITY = 90


def wanted(recipe: TrainParams, *, epoch: int, last: bool) -> bool:
    """Whether a validated epoch has sample images: the first, every n-th, the last."""
    if recipe.samples_every is None:
        return False
    number = (epoch + 1) // recipe.validate_every
    return last or number == 1 or number % recipe.samples_every == 0


def chosen(num_pairs: int, num_samples: int) -> frozenset[int]:
    """Indices of the sample pairs, evenly spaced; the same in every epoch."""
    count = min(num_samples, num_pairs)
    return frozenset(number * num_pairs // count for number in range(count))


def images(epoch: int, pairs: PackedPairs, outputs: Mapping[int, Pixels]) -> list[SampleImage]:
    """Low, output and high of pairs side by side; outputs (H, W, 3) by index of the pair."""
    return [
        SampleImage(epoch=epoch, pair=pairs.names[index], jpeg=_jpeg(pairs, index, output))
        for index, output in sorted(outputs.items())
    ]


def _jpeg(pairs: PackedPairs, index: int, output: Pixels) -> bytes:
    low, high = pairs.pair(index)
    target = io.BytesIO()
    Image.fromarray(side_by_side([low, output, high])).save(target, "JPEG", quality=_QUALITY)
    return target.getvalue()
