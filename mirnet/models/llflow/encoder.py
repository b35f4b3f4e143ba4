"""The conditional encoder of LLFlow. Modules are named as in the published checkpoints."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.dense import SLOPE, ResidualDense, conv
from mirnet.models.layers.pooling import GlobalPooling

DARKEST = 1e-3
LEAST_SUM = 1e-4


def equalised(image: Tensor, statistics: GlobalPooling) -> Tensor:
    """(N, 3, H, W) in [0, 1] with the histogram of each channel, of 8 bits, made even.

    The darkest value that occurs becomes 0.
    """
    cumulated = statistics.histogram(image).cumsum(2)
    first = torch.where(cumulated > 0, cumulated, 2.0).amin(2, keepdim=True)
    table = ((cumulated - first) / (1 - first).clamp_min(1e-9) * 255).round().clamp(0, 255) / 255
    levels = (image * 255).round().clamp(0, 255).long()
    # one histogram of the whole image serves all its crops; `len` would fix the batch on export
    table = table.to(image.dtype).squeeze(3).expand(image.shape[0], -1, -1)
    values = table.gather(2, levels.flatten(2))
    return values.reshape(image.shape)


def colour_map(image: Tensor) -> Tensor:
    """Shares of red, green and blue: (N, 3, H, W)."""
    return image / (image.sum(1, keepdim=True) + LEAST_SUM)


def _steepest(x: Tensor) -> Tensor:
    """The larger of the absolute central differences of rows and columns; 0 outside."""
    padded = F.pad(x, (1, 1, 1, 1))
    across = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) / 2
    along = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) / 2
    return torch.maximum(across.abs(), along.abs())


class Encoder(nn.Module):
    """The dark image -> conditions of the flow and the mean of its latent variables.

    Args:
        kept: blocks whose features are conditions: the second, fourth and so on.
    """

    def __init__(self, width: int, *, growth: int, blocks: int, kept: int) -> None:
        super().__init__()
        self.kept = range(1, 2 * kept, 2)
        self.conv_first = conv(12, width)
        self.conv_second = conv(width, width)
        self.RRDB_trunk = nn.ModuleList(ResidualDense(width, growth) for _ in range(blocks))
        self.trunk_conv = conv(width, width)
        self.downconv1 = conv(width, width)
        self.downconv2 = conv(width, width)
        self.fine_tune_color_map = nn.Sequential(nn.Conv2d(width, 3, 1), nn.Sigmoid())

    def forward(self, given: Tensor) -> tuple[list[Tensor], Tensor]:
        """Logarithm of the image and equalised image, (N, 6, H, W).

        Returns:
            Conditions at a half, a quarter and an eighth of the size, and the mean (N, 3, H, W).
        """
        colours = colour_map(given[:, :3].exp())
        stem = torch.cat([given, colours, _steepest(colours)], dim=1)
        x = F.leaky_relu(self.conv_first(stem), SLOPE)
        first = x = F.max_pool2d(self.conv_second(x), 2)
        kept = []
        for number, block in enumerate(self.RRDB_trunk):
            x = block(x)
            if number in self.kept:
                kept.append(x)
        half = first + self.trunk_conv(x)
        quarter = F.leaky_relu(self.downconv1(_halved(half)), SLOPE)
        eighth = self.downconv2(_halved(quarter))
        mean: Tensor = self.fine_tune_color_map(F.interpolate(half, scale_factor=2, mode="nearest"))
        conditions = [
            torch.cat([features, *(each[:, :, ::step, ::step] for each in kept)], dim=1)
            for features, step in ((half, 1), (quarter, 2), (eighth, 4))
        ]
        return conditions, mean


def _halved(x: Tensor) -> Tensor:
    """Bilinear halving, at half-pixel centres: means of 2 x 2."""
    return F.avg_pool2d(x, 2)
