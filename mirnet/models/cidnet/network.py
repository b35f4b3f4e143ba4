"""HVI-CIDNet: Yan et al., CVPR 2025. Modules are named as in the published checkpoints.

The published network also holds a block whose result it does not use (``I_LCA5``); it is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mirnet.models.layers.aligned import aligned_resize
from mirnet.models.layers.hvi import HVI
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.transposed import ChannelNorm, mix_channels
from mirnet.models.network import Network

EXPANSION = 2.66
HEADS = (2, 4, 8)  # per level
EPS = 1e-6


def _conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2, bias=False)


def _depthwise(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)


def _edge(in_channels: int, out_channels: int) -> nn.Sequential:
    """First and last convolution of a branch, which repeat the border."""
    return nn.Sequential(
        nn.ReplicationPad2d(1), nn.Conv2d(in_channels, out_channels, 3, bias=False)
    )


class Frames:
    """Frames of the input, at full size, a half, a quarter and an eighth."""

    def __init__(self, frame: Tensor | None) -> None:
        self._frame = frame

    def at(self, scale: int) -> Tensor | None:
        return None if self._frame is None else self._frame / scale


class Down(nn.Module):
    """(N, C, H, W) -> (N, D, H/2, W/2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.prelu = nn.PReLU()
        self.down = nn.Sequential(_conv(in_channels, out_channels))

    def forward(self, x: Tensor, frame: Tensor | None) -> Tensor:
        height, width = x.shape[2:]
        resized = aligned_resize(self.down(x), height // 2, width // 2, frame=frame)
        out: Tensor = self.prelu(resized)
        return out


class Up(nn.Module):
    """(N, C, H, W) and a skip (N, D, 2H, 2W) -> (N, D, 2H, 2W)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.prelu = nn.PReLU()
        self.up_scale = nn.Sequential(_conv(in_channels, out_channels))
        self.up = _conv(2 * out_channels, out_channels, 1)

    def forward(self, x: Tensor, skip: Tensor, frame: Tensor | None) -> Tensor:
        height, width = x.shape[2:]
        resized = aligned_resize(self.up_scale(x), 2 * height, 2 * width, frame=frame)
        out: Tensor = self.prelu(self.up(torch.cat([resized, skip], dim=1)))
        return out


class Attention(nn.Module):
    """Attention between the channels of one branch and those of the other."""

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.q = _conv(channels, channels, 1)
        self.q_dwconv = _depthwise(channels)
        self.kv = _conv(channels, 2 * channels, 1)
        self.kv_dwconv = _depthwise(2 * channels)
        self.project_out = _conv(channels, channels, 1)

    def forward(self, x: Tensor, other: Tensor, statistics: GlobalPooling) -> Tensor:
        q = self.q_dwconv(self.q(x))
        k, v = self.kv_dwconv(self.kv(other)).chunk(2, dim=1)
        out: Tensor = self.project_out(mix_channels(q, k, v, self.temperature, statistics))
        return out


class Enhancement(nn.Module):
    """IEL: the product of two halves of the features."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * EXPANSION)
        self.project_in = _conv(channels, 2 * hidden, 1)
        self.dwconv = _depthwise(2 * hidden)
        self.dwconv1 = _depthwise(hidden)
        self.dwconv2 = _depthwise(hidden)
        self.project_out = _conv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        first = first + self.dwconv1(first).tanh()
        second = second + self.dwconv2(second).tanh()
        out: Tensor = self.project_out(first * second)
        return out


class CrossBlock(nn.Module):
    """LCA: attention to the other branch, then IEL; one normalisation serves all three inputs.

    Args:
        residual: whether the input of IEL is added to its output: in the branch of intensity.
    """

    num_statistics = 1

    def __init__(self, channels: int, *, heads: int, residual: bool) -> None:
        super().__init__()
        self.gdfn = Enhancement(channels)
        self.norm = ChannelNorm(channels, eps=EPS)
        self.ffn = Attention(channels, heads=heads)
        self.residual = residual

    def forward(self, x: Tensor, other: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        x = x + self.ffn(self.norm(x), self.norm(other), statistics)
        out: Tensor = self.gdfn(self.norm(x))
        return x + out if self.residual else out


class CIDNet(Network):
    """1,904,609 parameters in the paper's configuration; H and W multiples of 8.

    Two branches, of colour (HV) and of intensity (I), attend to each other.
    """

    def __init__(self, *, width: int, saturation: float) -> None:
        super().__init__()
        self.saturation = saturation
        widths = (width, width, 2 * width, 4 * width)
        self.HVE_block0 = _edge(3, width)
        self.IE_block0 = _edge(1, width)
        self.HVD_block0 = _edge(width, 2)
        self.ID_block0 = _edge(width, 1)
        for level in (1, 2, 3):
            fine, coarse = widths[level - 1 : level + 1]
            for branch in ("HV", "I"):
                self.add_module(f"{branch}E_block{level}", Down(fine, coarse))
                self.add_module(f"{branch}D_block{level}", Up(coarse, fine))
        for number, level in enumerate((1, 2, 3, 3, 2, 1), start=1):
            for branch in ("HV", "I"):
                if (branch, number) == ("I", 5):
                    continue
                block = CrossBlock(widths[level], heads=HEADS[level - 1], residual=branch == "I")
                self.add_module(f"{branch}_LCA{number}", block)
        self.trans = HVI()
        attentions = sum(isinstance(module, Attention) for module in self.modules())
        self.num_statistics = attentions + 1  # and the frame

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        hvi = self.trans(image)
        features = hvi.to(self.IE_block0[1].weight.dtype)
        changed = self._changes(features, statistics)
        out: Tensor = self.trans.inverse(hvi + changed, saturation=self.saturation)
        return out

    def repeated_blocks(self) -> Sequence[nn.Module]:
        return [module for module in self.modules() if isinstance(module, CrossBlock)]

    def _changes(self, hvi: Tensor, statistics: GlobalPooling) -> Tensor:
        frames = Frames(statistics.frame)
        run = self.get_submodule

        def cross(number: int, light: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
            return (
                run(f"I_LCA{number}")(light, colour, statistics),
                run(f"HV_LCA{number}")(colour, light, statistics),
            )

        def down(level: int, light: Tensor, colour: Tensor) -> tuple[Tensor, Tensor]:
            frame = frames.at(2 ** (level - 1))
            return run(f"IE_block{level}")(light, frame), run(f"HVE_block{level}")(colour, frame)

        light0, colour0 = self.IE_block0(hvi[:, 2:]), self.HVE_block0(hvi)
        light1, colour1 = cross(1, *down(1, light0, colour0))
        lower = down(2, light1, colour1)
        light2, colour2 = cross(2, *lower)  # for the skips alone: the next level starts before it
        light, colour = cross(4, *cross(3, *down(3, *lower)))
        quarter, half, full = (frames.at(scale) for scale in (8, 4, 2))
        colour = run("HVD_block3")(colour, colour2, quarter)
        light = run("ID_block3")(light, light2, quarter)
        colour = run("HV_LCA5")(colour, light, statistics)
        light = run("ID_block2")(light, light1, half)
        colour = run("HVD_block2")(colour, colour1, half)
        light, colour = cross(6, light, colour)
        light = self.ID_block0(run("ID_block1")(light, light0, full))
        colour = self.HVD_block0(run("HVD_block1")(colour, colour0, full))
        return torch.cat([colour, light], dim=1)
