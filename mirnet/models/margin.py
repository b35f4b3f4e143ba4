"""A margin of mirrored pixels around an image, so that zero padding does not affect the output.

The convolutions of both networks pad with zeros and have no bias, so feature maps are too small
near the border of the input, and so is the light that the network adds there. The margin moves
this region outside of the image. Measured in docs/benchmarks/borders.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirnet.models.network import Network

# the least height and width that an exported graph takes, where the network needs no more
EXPORTED_LEAST = 8


def mirrored(size: int, *, start: int, stop: int) -> Tensor:
    """Which pixels of an axis of ``size`` stand at the places ``start`` to ``stop``.

    (stop - start,) int64 in [0, size). Places outside of the axis are mirrored at its ends, without
    repeating the end itself; again and again where the axis is short, so that one pixel will do.
    """
    places = torch.arange(start, stop)
    if torch.compiler.is_exporting():
        # ONNX has no remainder by a size that is free; as often as the least size needs it
        last = size - 1
        reach = 2 * EXPORTED_LEAST - 2
        for _ in range(1 + (EXPORTED_LEAST - 2 - start) // reach):
            places = last - (last - places.abs()).abs()
        return places
    if size == 1:
        return torch.zeros_like(places)
    period = 2 * (size - 1)
    places = places % period
    return torch.minimum(places, period - places)


def rounded_up(size: int, *, multiple: int) -> int:
    """The least multiple that is not below ``size``."""
    return -(-size // multiple) * multiple


def extended(image: Tensor, *, margin: int, multiple: int, least: int = 1) -> Tensor:
    """(N, C, H, W) with a margin on all sides, and more at the bottom and right up to multiples.

    Args:
        multiple: of the height and width that come out; an exported graph is given such ones.
        least: height and width that come out, at least; a multiple itself.
    """
    for dim in (2, 3):
        size = image.shape[dim]
        length = size + 2 * margin
        if not torch.compiler.is_exporting():
            length = max(rounded_up(length, multiple=multiple), least)
        places = mirrored(size, start=-margin, stop=length - margin)
        image = image.index_select(dim, places.to(image.device))
    return image


class Margined(nn.Module):
    """A network that extends what it is given by its margin and cuts it off again.

    (N, 3, H, W) -> (N, 3, H, W), any height and width from 1; in an exported graph multiples of
    the network's ``size_multiple``, at least :func:`exported_least`.
    """

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model
        self.margin = model.margin
        self.size_multiple = model.size_multiple
        self.min_size = model.min_size

    def forward(self, image: Tensor) -> Tensor:
        margin = self.margin
        height, width = image.shape[2:]
        given = extended(image, margin=margin, multiple=self.size_multiple, least=self.min_size)
        out: Tensor = self.model(given)
        return out[:, :, margin : margin + height, margin : margin + width]
