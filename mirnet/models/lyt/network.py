"""LYT-Net: Brateanu et al., IEEE Signal Processing Letters 2025, in the form of its PyTorch code.

Modules are named as in the published checkpoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.transposed import ChannelNorm
from mirnet.models.network import Network

HEADS = 4
POOL = 8
SQUEEZE = 16
# of RGB, a row per channel of YUV; U and V are shifted into [0, 1]
YUV = ((0.299, 0.587, 0.114), (-0.14713, -0.28886, 0.436), (0.615, -0.51499, -0.10001))
SHIFT = (0.0, 0.5, 0.5)


class Attention(nn.Module):
    """Multi-head attention between all places of a map.

    Tokens are runs of C values in the memory of (C, H, W), as in the published code, so they are
    no pixels; the output is one token per pixel.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query_dense = nn.Linear(channels, channels)
        self.key_dense = nn.Linear(channels, channels)
        self.value_dense = nn.Linear(channels, channels)
        self.combine_heads = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        tokens = x.contiguous().reshape(n, h * w, c)
        q, k, v = (
            dense(tokens).reshape(n, h * w, HEADS, c // HEADS).transpose(1, 2)
            for dense in (self.query_dense, self.key_dense, self.value_dense)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        out: Tensor = self.combine_heads(mixed).reshape(n, h, w, c).permute(0, 3, 1, 2)
        return out


class Denoiser(nn.Module):
    """(N, 1, H, W) -> (N, 1, H, W) in (-1, 1), to be added; H and W multiples of 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.conv3 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.conv4 = nn.Conv2d(width, width, 3, stride=2, padding=1)
        self.bottleneck = Attention(width)
        self.output_layer = nn.Conv2d(1, 1, 3, padding=1)
        self.res_layer = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x).relu()
        second = self.conv2(first).relu()
        third = self.conv3(second).relu()
        x = self.bottleneck(self.conv4(third).relu())
        for skip in (third, second, first):
            x = F.interpolate(x, scale_factor=2, mode="nearest") + skip
        out: Tensor = self.output_layer(2 * self.res_layer(x)).tanh()
        return out


class Squeeze(nn.Module):
    """A factor per channel, from its mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, channels // SQUEEZE)
        self.fc2 = nn.Linear(channels // SQUEEZE, channels)

    def forward(self, x: Tensor) -> Tensor:
        factor: Tensor = self.fc2(self.fc1(x.mean((2, 3))).relu()).tanh()
        return x * factor[:, :, None, None]


class Norm(nn.Module):
    """Holds the normalisation under the name of the published network."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm(x)
        return out


class Fusion(nn.Module):
    """MSEF: the product of a depthwise convolution and of squeezed features, and a residual."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_norm = Norm(channels)
        self.depthwise_conv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.se_attn = Squeeze(channels)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layer_norm(x)
        out: Tensor = self.depthwise_conv(normed) * self.se_attn(normed) + x
        return out


def _process(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())


class LYTNet(Network):
    """44,923 parameters in the paper's configuration; the output is in (0, 1)."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.process_y = _process(width)
        self.process_cb = _process(width)
        self.process_cr = _process(width)
        self.denoiser_cb = Denoiser(width // 2)
        self.denoiser_cr = Denoiser(width // 2)
        self.lum_mhsa = Attention(width)
        self.lum_conv = nn.Conv2d(width, width, 1)
        self.ref_conv = nn.Conv2d(2 * width, width, 1)
        self.msef = Fusion(width)
        self.recombine = nn.Conv2d(2 * width, width, 3, padding=1)
        self.final_adjustments = nn.Conv2d(width, 3, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
            elif isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
            else:
                continue
            assert module.bias is not None
            nn.init.zeros_(module.bias)

    def forward(self, image: Tensor) -> Tensor:
        matrix = torch.tensor(YUV, dtype=image.dtype, device=image.device)
        shift = torch.tensor(SHIFT, dtype=image.dtype, device=image.device)
        yuv = F.conv2d(image, matrix[:, :, None, None], shift).to(self.recombine.weight.dtype)
        y, u, v = yuv.chunk(3, dim=1)
        u, v = self.denoiser_cb(u) + u, self.denoiser_cr(v) + v
        light = self.process_y(y)
        attended = self.lum_mhsa(F.max_pool2d(light, POOL))
        light = light + F.interpolate(attended, scale_factor=POOL, mode="nearest")
        colour = self.ref_conv(torch.cat([self.process_cb(u), self.process_cr(v)], dim=1))
        colour = colour + self.msef(colour + 0.2 * self.lum_conv(light))
        both = self.recombine(torch.cat([colour, light], dim=1))
        out: Tensor = self.final_adjustments(both).float().sigmoid()
        return out
