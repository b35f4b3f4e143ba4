"""Retinexformer: Cai et al., ICCV 2023. Modules are named as in the published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.transposed import ChannelNorm, mix_channels
from mirnet.models.network import Network


class IlluminationEstimator(nn.Module):
    """(N, 3, H, W) -> illumination features (N, C, H, W) and map (N, 3, H, W) (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(4, channels, 1)
        self.depth_conv = nn.Conv2d(channels, channels, 5, padding=2, groups=4)
        self.conv2 = nn.Conv2d(channels, 3, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        grey = image.mean(1, keepdim=True)
        features = self.depth_conv(self.conv1(torch.cat([image, grey], dim=1)))
        return features, self.conv2(features)


class Attention(nn.Module):
    """IG-MSA: attention between channels, values lit by the illumination (section 3.2)."""

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.rescale = nn.Parameter(torch.ones(heads, 1, 1))
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k = nn.Linear(channels, channels, bias=False)
        self.to_v = nn.Linear(channels, channels, bias=False)
        self.proj = nn.Linear(channels, channels)
        self.pos_emb = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        )

    def forward(self, x: Tensor, light: Tensor, statistics: GlobalPooling) -> Tensor:
        q, k, v = (_pointwise(linear, x) for linear in (self.to_q, self.to_k, self.to_v))
        mixed = mix_channels(k, q, v * light, self.rescale, statistics)
        out: Tensor = _pointwise(self.proj, mixed) + self.pos_emb(v)
        return out


def _pointwise(linear: nn.Module, x: Tensor) -> Tensor:
    """A linear layer over the channels of (N, C, H, W)."""
    assert isinstance(linear, nn.Linear)
    return F.conv2d(x, linear.weight[:, :, None, None], linear.bias)


class FeedForward(nn.Module):
    """Convolutions 1x1, depthwise 3x3 and 1x1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = 4 * channels
        self.net = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False),
            nn.GELU(),
            nn.Conv2d(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.net(x)
        return out


class PreNorm(nn.Module):
    """A feed-forward network behind a normalisation; the attention has none."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fn = FeedForward(channels)
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fn(self.norm(x))
        return out


class Block(nn.ModuleList):
    """IGAB: attention, then the feed-forward network, which have numbers, not names."""

    num_statistics = 1

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__([Attention(channels, heads=heads), PreNorm(channels)])

    def forward(self, x: Tensor, light: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        attention, feed_forward = self
        x = x + attention(x, light, statistics)
        out: Tensor = x + feed_forward(x)
        return out


class Blocks(nn.Module):
    """IGAB, several in a row, at one level."""

    def __init__(self, channels: int, *, heads: int, count: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(channels, heads=heads) for _ in range(count))

    def forward(self, x: Tensor, light: Tensor, statistics: GlobalPooling) -> Tensor:
        for block in self.blocks:
            x = block(x, light, statistics)
        return x


def _halved(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1, bias=False)


class Denoiser(nn.Module):
    """Corruption restorer: a U-shaped network of two scales down (section 3.2)."""

    def __init__(self, channels: int, *, num_blocks: Sequence[int]) -> None:
        super().__init__()
        n = channels
        self.embedding = nn.Conv2d(3, n, 3, padding=1, bias=False)
        self.encoder_layers = nn.ModuleList(
            nn.ModuleList(
                [
                    Blocks(n * 2**i, heads=2**i, count=num_blocks[i]),
                    _halved(n * 2**i),
                    _halved(n * 2**i),
                ]
            )
            for i in range(2)
        )
        self.bottleneck = Blocks(4 * n, heads=4, count=num_blocks[2])
        self.decoder_layers = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.ConvTranspose2d(n * 2 ** (i + 1), n * 2**i, 2, stride=2),
                    nn.Conv2d(n * 2 ** (i + 1), n * 2**i, 1, bias=False),
                    Blocks(n * 2**i, heads=2**i, count=num_blocks[i]),
                ]
            )
            for i in (1, 0)
        )
        self.mapping = nn.Conv2d(n, 3, 3, padding=1, bias=False)
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)

    def forward(self, lit: Tensor, light: Tensor, statistics: GlobalPooling) -> Tensor:
        x = self.embedding(lit)
        skips = []
        for layer in self.encoder_layers:
            assert isinstance(layer, nn.ModuleList)
            blocks, down, down_light = layer
            x = blocks(x, light, statistics)
            skips.append((x, light))
            x, light = down(x), down_light(light)
        x = self.bottleneck(x, light, statistics)
        for layer in self.decoder_layers:
            assert isinstance(layer, nn.ModuleList)
            up, fuse, blocks = layer
            skip, light = skips.pop()
            x = blocks(fuse(torch.cat([up(x), skip], dim=1)), light, statistics)
        out: Tensor = self.mapping(x)
        return out


class Stage(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W), float32."""

    def __init__(self, channels: int, *, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.estimator = IlluminationEstimator(channels)
        self.denoiser = Denoiser(channels, num_blocks=num_blocks)

    def forward(self, image: Tensor, statistics: GlobalPooling) -> Tensor:
        dtype = self.denoiser.mapping.weight.dtype
        light, factor = self.estimator(image.to(dtype))
        lit = image * factor + image
        out: Tensor = lit + self.denoiser(lit.to(dtype), light, statistics)
        return out


class Retinexformer(Network):
    """1,605,701 parameters in the paper's configuration; H and W multiples of 4."""

    def __init__(self, *, n_feat: int, stages: int, num_blocks: Sequence[int]) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Stage(n_feat, num_blocks=num_blocks) for _ in range(stages)))
        self.num_statistics = sum(isinstance(module, Attention) for module in self.modules())

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        for stage in self.body:
            image = stage(image, statistics)
        return image

    def repeated_blocks(self) -> Sequence[nn.Module]:
        return [module for module in self.modules() if isinstance(module, Block)]
