"""Learned resizing of feature maps in MIRNet and MIRNet-v2.

1x1 convolutions and linear resizing commute. Here each 1x1 runs on the smaller side: after a
blur-down, before a bilinear upsample; equal results, a quarter of the work.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models import ops


def upsample2(x: Tensor) -> Tensor:
    """Bilinear x2, half-pixel centres: (N, C, H, W) -> (N, C, 2H, 2W)."""
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


class LazyUpsample(NamedTuple):
    """The map ``upsample2(small) + full``, materialised only if needed.

    Bilinear x2 upsampling gives every input pixel, border included, a total weight of 4. So the
    mean of the map is the sum of the means of its parts, and channel weights commute with it.
    """

    small: Tensor
    full: Tensor | None = None

    @property
    def parts(self) -> tuple[Tensor, ...]:
        """Maps whose means sum to the mean of this map."""
        return (self.small,) if self.full is None else (self.small, self.full)

    def materialize(self) -> Tensor:
        """(N, C, 2H, 2W) for a ``small`` of (N, C, H, W)."""
        doubled = upsample2(self.small)
        return doubled if self.full is None else doubled + self.full

    def __mul__(self, weight: Tensor) -> Tensor:  # type: ignore[override]
        """The map times (N, C, 1, 1)."""
        doubled = upsample2(self.small * weight)
        return doubled if self.full is None else doubled + self.full * weight


class BlurDown(nn.Module):
    """Anti-aliased subsampling: [1 2 1] x [1 2 1] / 16, reflect padding, stride 2.

    (N, C, H, W) -> (N, C, H/2, W/2). Zhang, Making Convolutional Networks Shift-Invariant
    Again, ICML 2019.
    """

    kernel: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0]) / 4
        kernel = (line[:, None] * line[None, :]).expand(channels, 1, 3, 3).contiguous()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return ops.blur_down(x, self.kernel)


class Down(nn.Module):
    """Residual downsampling by 2, C -> 2C channels (MIRNet section 3.3, fig. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 1, bias=False)
        self.activation1 = ops.PReLU()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.activation2 = ops.PReLU()
        self.expand = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.skip = nn.Conv2d(channels, 2 * channels, 1, bias=False)
        self.blur = BlurDown(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 2C, H/2, W/2); H and W even, at least 2."""
        reduced = ops.conv_act(self.reduce, self.activation1, x)
        top = self.activation2(self.conv(reduced))  # compiled together with the blur's padding
        out: Tensor = self.expand(self.blur(top)) + self.skip(self.blur(x))
        return out


class Up(nn.Module):
    """Residual upsampling by 2, C -> C/2 channels (MIRNet section 3.3, fig. 4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels, 1, bias=False)
        self.activation1 = ops.PReLU()
        self.conv = nn.ConvTranspose2d(
            channels, channels, 3, stride=2, padding=1, output_padding=1, bias=False
        )
        self.activation2 = ops.PReLU()
        self.expand = nn.Conv2d(channels, channels // 2, 1, bias=False)
        self.skip = nn.Conv2d(channels, channels // 2, 1, bias=False)

    def forward(self, x: Tensor) -> LazyUpsample:
        """(N, C, H, W) -> (N, C/2, 2H, 2W)."""
        reduced = ops.conv_act(self.reduce, self.activation1, x)
        top = ops.conv_act(self.conv, self.activation2, reduced)
        return LazyUpsample(self.skip(x), self.expand(top))


class Upwards(nn.Sequential):
    """Several :class:`Up`; the result of the last one is not materialised."""

    def forward(self, x: Tensor) -> LazyUpsample:
        """(N, C, H, W) -> (N, C / 2**n, 2**n H, 2**n W)."""
        *steps, last = self
        for step in steps:
            x = step(x).materialize()
        out: LazyUpsample = last(x)
        return out


def resize(channels: int, *, steps: int) -> nn.Module:
    """The path between rows ``steps`` apart: down for positive, up for negative."""
    if steps > 0:
        return nn.Sequential(*(Down(channels * 2**i) for i in range(steps)))
    return Upwards(*(Up(channels // 2**i) for i in range(-steps)))


class AverageDown(nn.Module):
    """Average over 2x2, then 1x1 (MIRNet-v2 section 3.1): (N, C, H, W) -> (N, D, H/2, W/2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))
        return out


class BilinearUp(nn.Module):
    """1x1, then bilinear x2 (MIRNet-v2 section 3.1): (N, C, H, W) -> (N, D, 2H, 2W)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> LazyUpsample:
        return LazyUpsample(self.conv(x))
