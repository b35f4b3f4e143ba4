"""Restormer: Zamir et al., CVPR 2022. Modules are named as in the published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.transposed import ChannelNorm, mix_channels
from mirnet.models.network import Network

EXPANSION = 2.66


class Norm(nn.Module):
    """Holds the normalisation under the name of the published network."""

    def __init__(self, channels: int, *, biased: bool) -> None:
        super().__init__()
        self.body = ChannelNorm(channels, bias=biased)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class Attention(nn.Module):
    """MDTA: attention between channels of 1x1 and depthwise 3x3 convolutions (section 3.1)."""

    def __init__(self, channels: int, *, heads: int) -> None:
        super().__init__()
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(channels, 3 * channels, 1, bias=False)
        self.qkv_dwconv = nn.Conv2d(
            3 * channels, 3 * channels, 3, padding=1, groups=3 * channels, bias=False
        )
        self.project_out = nn.Conv2d(channels, channels, 1, bias=False)

    def forward(self, x: Tensor, statistics: GlobalPooling) -> Tensor:
        q, k, v = self.qkv_dwconv(self.qkv(x)).chunk(3, dim=1)
        out: Tensor = self.project_out(mix_channels(q, k, v, self.temperature, statistics))
        return out


class FeedForward(nn.Module):
    """GDFN: one half of the features gates the other (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = int(channels * EXPANSION)
        self.project_in = nn.Conv2d(channels, 2 * hidden, 1, bias=False)
        self.dwconv = nn.Conv2d(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden, bias=False)
        self.project_out = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.dwconv(self.project_in(x)).chunk(2, dim=1)
        out: Tensor = self.project_out(F.gelu(gate) * value)
        return out


class Block(nn.Module):
    """(N, C, H, W) -> (N, C, H, W)."""

    num_statistics = 1

    def __init__(self, channels: int, *, heads: int, biased: bool) -> None:
        super().__init__()
        self.norm1 = Norm(channels, biased=biased)
        self.attn = Attention(channels, heads=heads)
        self.norm2 = Norm(channels, biased=biased)
        self.ffn = FeedForward(channels)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        x = x + self.attn(self.norm1(x), statistics)
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class Resize(nn.Module):
    """A 3x3 convolution, then pixels to channels or channels to pixels."""

    def __init__(self, in_channels: int, out_channels: int, shuffle: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), shuffle
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out


class PatchEmbed(nn.Module):
    """The first convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, channels, 3, padding=1, bias=False)

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.proj(image)
        return out


class Restormer(Network):
    """26,126,644 parameters in the paper's configuration; H and W multiples of 8."""

    def __init__(
        self,
        *,
        dim: int,
        num_blocks: Sequence[int],
        heads: Sequence[int],
        refinement: int,
        biased_norm: bool,
    ) -> None:
        super().__init__()

        def level(scale: int, *, blocks: int, heads: int) -> nn.ModuleList:
            return nn.ModuleList(
                Block(scale * dim, heads=heads, biased=biased_norm) for _ in range(blocks)
            )

        def down(scale: int) -> Resize:
            return Resize(scale * dim, scale * dim // 2, nn.PixelUnshuffle(2))

        def up(scale: int) -> Resize:
            return Resize(scale * dim, 2 * scale * dim, nn.PixelShuffle(2))

        self.patch_embed = PatchEmbed(dim)
        self.encoder_level1 = level(1, blocks=num_blocks[0], heads=heads[0])
        self.down1_2 = down(1)
        self.encoder_level2 = level(2, blocks=num_blocks[1], heads=heads[1])
        self.down2_3 = down(2)
        self.encoder_level3 = level(4, blocks=num_blocks[2], heads=heads[2])
        self.down3_4 = down(4)
        self.latent = level(8, blocks=num_blocks[3], heads=heads[3])
        self.up4_3 = up(8)
        self.reduce_chan_level3 = nn.Conv2d(8 * dim, 4 * dim, 1, bias=False)
        self.decoder_level3 = level(4, blocks=num_blocks[2], heads=heads[2])
        self.up3_2 = up(4)
        self.reduce_chan_level2 = nn.Conv2d(4 * dim, 2 * dim, 1, bias=False)
        self.decoder_level2 = level(2, blocks=num_blocks[1], heads=heads[1])
        self.up2_1 = up(2)
        # without a reduction: twice the channels of its encoder
        self.decoder_level1 = level(2, blocks=num_blocks[0], heads=heads[0])
        self.refinement = level(2, blocks=refinement, heads=heads[0])
        self.output = nn.Conv2d(2 * dim, 3, 3, padding=1, bias=False)
        self.num_statistics = sum(isinstance(module, Block) for module in self.modules())

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        def run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
            for block in blocks:
                x = block(x, statistics)
            return x

        x = self.patch_embed(image.to(self.output.weight.dtype))
        first = run(self.encoder_level1, x)
        second = run(self.encoder_level2, self.down1_2(first))
        third = run(self.encoder_level3, self.down2_3(second))
        x = run(self.latent, self.down3_4(third))
        x = self.reduce_chan_level3(torch.cat([self.up4_3(x), third], dim=1))
        x = run(self.decoder_level3, x)
        x = self.reduce_chan_level2(torch.cat([self.up3_2(x), second], dim=1))
        x = run(self.decoder_level2, x)
        x = run(self.decoder_level1, torch.cat([self.up2_1(x), first], dim=1))
        out: Tensor = image + self.output(run(self.refinement, x))
        return out

    def repeated_blocks(self) -> Sequence[nn.Module]:
        return [module for module in self.modules() if isinstance(module, Block)]
