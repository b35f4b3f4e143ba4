"""Residual U-Net made for short training on few cores.

Nearly all of its time goes into dense 3x3 convolutions, which processors compute at a higher rate
than many cheap operations. Its parts are those of published networks: the U
(Ronneberger et al., MICCAI 2015), space to depth at the start and back at the end (Shi et al., CVPR
2016), residual blocks without normalisation (Lim et al., EDSR, CVPRW 2017), and features scaled and
shifted by what the whole image is like (Perez et al., FiLM, AAAI 2018).
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network

_SLOPE = 0.1
_SMALL_START = 0.1  # factor of initial weights behind which a sum follows
_LEAST_MEAN = 0.01  # about 3 of 255: darker images hold too little to be scaled further
_BRIGHTEST = 1.5  # of the normalised image: highlights that the residual would have to undo


class Block(nn.Module):
    """Two 3x3 convolutions and their input: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = small(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.second(F.leaky_relu(self.first(x), _SLOPE))
        return out


class GlobalModulation(nn.Module):
    """Scales and shifts each channel by the averages of all: (N, C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Conv2d(channels, channels // 2, 1)
        self.outer = nn.Conv2d(channels // 2, 2 * channels, 1)
        nn.init.zeros_(self.outer.weight)
        assert self.outer.bias is not None
        nn.init.zeros_(self.outer.bias)

    def forward(self, x: Tensor, statistics: GlobalPooling) -> Tensor:
        scale, shift = self.outer(F.relu(self.inner(statistics.mean(x)))).chunk(2, dim=1)
        out: Tensor = x * (1 + scale) + shift
        return out


class ResUNet(Network):
    """(N, 3, H, W) in [0, 1] -> (N, 3, H, W), unclamped.

    The image is first scaled to a learned mean, so that the network works on equal brightness
    whatever the exposure. The brighter the image was, the less of the result it gets: an image that
    needs nothing stays as it is, with a smooth learned step from one to the other. H and W are
    multiples of ``2 ** (num_levels - 1) * shuffle``.
    """

    num_statistics = 2

    def __init__(self, *, width: int, num_levels: int, num_blocks: int, shuffle: int) -> None:
        super().__init__()
        self.shuffle = shuffle
        widths = [width * 2**level for level in range(num_levels)]
        self.head = nn.Conv2d(2 * 3 * shuffle**2, width, 3, padding=1)
        self.encoder = nn.ModuleList(blocks(w, num_blocks) for w in widths)
        steps = list(itertools.pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.modulation = GlobalModulation(widths[-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps
        )
        self.decoder = nn.ModuleList(blocks(w, num_blocks) for w in widths[:-1])
        self.tail = small(nn.Conv2d(width, 3 * shuffle**2, 3, padding=1))
        self.mean = nn.Parameter(torch.tensor(0.45))
        self.bright = nn.Parameter(torch.tensor(0.3))
        self.steepness = nn.Parameter(torch.tensor(14.0))

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        brightness = statistics.mean(image).mean(dim=1, keepdim=True)
        scaled = image * (self.mean.float() / (brightness + _LEAST_MEAN))
        # the root beside it tells how dark the image was
        both = torch.cat([scaled, torch.sqrt(image.clamp_min(0) + 1e-3)], dim=1)
        if self.shuffle > 1:
            both = F.pixel_unshuffle(both, self.shuffle)
        x = self.head(both.to(self.head.weight.dtype))
        skips = []
        for block, down in zip(self.encoder, self.down, strict=False):
            skips.append(block(x))
            x = down(skips[-1])
        x = self.modulation(self.encoder[-1](x), statistics)
        for up, block in zip(reversed(self.up), reversed(self.decoder), strict=True):
            x = block(up(x) + skips.pop())
        residual = self.tail(x).float()
        if self.shuffle > 1:
            residual = F.pixel_shuffle(residual, self.shuffle)
        enhanced = scaled.clamp(max=_BRIGHTEST) + residual
        share = torch.sigmoid(self.steepness.float() * (self.bright.float() - brightness))
        output: Tensor = image + share * (enhanced - image)
        return output


def blocks(channels: int, count: int) -> nn.Module:
    return nn.Sequential(*(Block(channels) for _ in range(count)))


def small(layer: nn.Conv2d) -> nn.Conv2d:
    """The layer with small initial weights, so that it changes a sum little at first."""
    with torch.no_grad():
        layer.weight.mul_(_SMALL_START)
        if layer.bias is not None:
            layer.bias.zero_()
    return layer
