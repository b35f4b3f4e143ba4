"""A margin of mirrored pixels around an image, so that zero padding does not affect the output.

Convolutions that pad with zeros see a dark frame around the image: activations near the border of
the input are too small, and the output of MIRNet, which has no bias, is too dark there. The margin
moves this region out of the image. Measured in docs/benchmarks/borders.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirnet.models.network import Network

# minimum height and width of an exported graph, unless the network needs more
EXPORTED_LEAST = 8


def mirrored(size: int, *, start: int, stop: int) -> Tensor:
    """Source indices of the positions ``start`` to ``stop`` of an axis with reflect padding.

    (stop - start,) int64 in [0, size). Positions outside of the axis are mirrored at its ends,
    without repeating the end itself, and repeatedly if the axis is short; ``size`` is at least 1.
    """
    places = torch.arange(start, stop)
    if torch.compiler.is_exporting():
        # ONNX has no remainder by a dynamic size: reflect as often as the minimum size needs
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
    """The smallest multiple of ``multiple`` that is at least ``size``."""
    return -(-size // multiple) * multiple


def extended(image: Tensor, *, margin: int, multiple: int, least: int = 1) -> Tensor:
    """(N, C, H, W) with a margin on all sides, and more at the bottom and right up to multiples.

    Args:
        multiple: of the resulting height and width; the input of an exported graph has such sizes.
        least: minimum of the resulting height and width; a multiple itself.
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
    """A network that adds the margin to its input and removes it from its output.

    (N, 3, H, W) -> (N, 3, H, W), any height and width from 1; in an exported graph multiples of
    the network's ``size_multiple``, at least ``EXPORTED_LEAST``.
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
