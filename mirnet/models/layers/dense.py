"""Residual blocks of dense ones: Wang et al., ESRGAN, ECCV Workshops 2018. Modules are named as in
the published checkpoints of it and of networks with its blocks.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.2
_RESIDUAL_SCALE = 0.2


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


class Dense(nn.Module):
    """Five convolutions, each of everything before it."""

    num_statistics = 0

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for number in range(1, 5):
            self.add_module(f"conv{number}", conv(channels + (number - 1) * growth, growth))
        self.conv5 = conv(channels + 4 * growth, channels)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for number in range(1, 5):
            added = self.get_submodule(f"conv{number}")(torch.cat(maps, dim=1))
            maps.append(F.leaky_relu(added, SLOPE))
        out: Tensor = x + _RESIDUAL_SCALE * self.conv5(torch.cat(maps, dim=1))
        return out


class ResidualDense(nn.Module):
    """RRDB: three dense blocks and a residual."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        self.RDB1 = Dense(channels, growth)
        self.RDB2 = Dense(channels, growth)
        self.RDB3 = Dense(channels, growth)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + _RESIDUAL_SCALE * self.RDB3(self.RDB2(self.RDB1(x)))
        return out
