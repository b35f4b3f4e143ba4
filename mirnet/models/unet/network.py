"""U-Net: Ronneberger et al., MICCAI 2015, in the form that is common in restoration.

Padded convolutions with batch normalisation. Modules are named as in the most used checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.aligned import aligned_resize
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network

LEVELS = 4


class Block(nn.Module):
    """Two 3x3 convolutions, each with normalisation and ReLU."""

    def __init__(self, in_channels: int, out_channels: int, *, hidden: int | None = None) -> None:
        super().__init__()
        hidden = hidden or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, hidden, 3, padding=1, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU(),
            nn.Conv2d(hidden, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.double_conv(x)
        return out


class Down(nn.Module):
    """(N, C, H, W) -> (N, D, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), Block(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.maxpool_conv(x)
        return out


class Up(nn.Module):
    """(N, C, H, W) and a skip of twice the size, with or without one row and column more.

    Args:
        bilinear: interpolation with aligned corners in place of a transposed convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, *, bilinear: bool) -> None:
        super().__init__()
        half = in_channels // 2
        self.up = None if bilinear else nn.ConvTranspose2d(in_channels, half, 2, stride=2)
        self.conv = Block(in_channels, out_channels, hidden=half if bilinear else None)

    def forward(self, x: Tensor, skip: Tensor, frame: Tensor | None) -> Tensor:
        if self.up is None:
            height, width = x.shape[2:]
            x = aligned_resize(x, 2 * height, 2 * width, frame=frame)
        else:
            x = self.up(x)
        rows, columns = (skip.shape[dim] - x.shape[dim] for dim in (2, 3))
        if rows or columns:
            x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        out: Tensor = self.conv(torch.cat([skip, x], dim=1))
        return out


class OutConv(nn.Module):
    """Holds the last convolution under the name of the published network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out


class UNet(Network):
    """31,037,763 parameters with ``width`` 64, bilinear 17,263,107."""

    num_statistics = 1  # the frame

    def __init__(self, *, width: int, bilinear: bool, residual: bool) -> None:
        super().__init__()
        self.residual = residual
        widths = [width * 2**level for level in range(LEVELS + 1)]
        if bilinear:
            widths[-1] //= 2
        self.inc = Block(3, width)
        for level in range(1, LEVELS + 1):
            self.add_module(f"down{level}", Down(widths[level - 1], widths[level]))
        for number, level in enumerate(range(LEVELS, 0, -1), start=1):
            fine = width * 2 ** (level - 1)
            narrow = fine // 2 if bilinear and level > 1 else fine
            self.add_module(f"up{number}", Up(2 * fine, narrow, bilinear=bilinear))
        self.outc = OutConv(width)

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        frame = statistics.frame
        maps = [self.inc(image.to(self.outc.conv.weight.dtype))]
        for level in range(1, LEVELS + 1):
            maps.append(self.get_submodule(f"down{level}")(maps[-1]))
        x = maps.pop()
        for number in range(1, LEVELS + 1):
            scale = 2 ** (LEVELS + 1 - number)
            here = None if frame is None else frame / scale
            x = self.get_submodule(f"up{number}")(x, maps.pop(), here)
        out: Tensor = self.outc(x).float()
        return image + out if self.residual else out
