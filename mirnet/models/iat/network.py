"""IAT: Cui et al., You Only Need 90K Parameters to Adapt Light, BMVC 2022.

Modules are named as in the published checkpoints. The published training also drops residual
branches of samples at random (rates 0.01 to 0.1); that is left out, because a run would then depend
on the number of workers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network

SLOPE = 0.2
NUM_BLOCKS = 3
HEADS = 4
QUERIES = 10  # one for gamma, nine for the colour matrix
DARKEST = 1e-8  # of the power, whose gradient is infinite at 0


class ColourAffine(nn.Module):
    """``alpha * (M x) + beta`` per pixel, with a learned matrix M over channels (section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, channels))
        self.beta = nn.Parameter(torch.zeros(1, 1, channels))
        self.color = nn.Parameter(torch.eye(channels))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.alpha.reshape(-1, 1) * self.color
        return F.conv2d(x, weight[:, :, None, None], self.beta.flatten())


class Perceptron(nn.Module):
    """Two layers, of pixels or tokens, with an exact GELU between them."""

    def __init__(self, fc1: nn.Module, fc2: nn.Module) -> None:
        super().__init__()
        self.fc1, self.fc2 = fc1, fc2

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return out


class LocalBlock(nn.Module):
    """Depthwise convolutions in place of self-attention (section 3.2, fig. 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma_1 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-4))
        self.gamma_2 = nn.Parameter(torch.full((1, channels, 1, 1), 1e-4))
        self.pos_embed = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = ColourAffine(channels)
        self.conv1 = nn.Conv2d(channels, channels, 1)
        self.conv2 = nn.Conv2d(channels, channels, 1)
        self.attn = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.norm2 = ColourAffine(channels)
        self.mlp = Perceptron(
            nn.Conv2d(channels, 4 * channels, 1), nn.Conv2d(4 * channels, channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.pos_embed(x)
        x = x + self.gamma_1 * self.conv2(self.attn(self.conv1(self.norm1(x))))
        out: Tensor = x + self.gamma_2 * self.mlp(self.norm2(x))
        return out


class LocalBranch(nn.Module):
    """(N, 3, H, W) -> factor (N, 3, H, W) from 0 up and offset (N, 3, H, W) in [-1, 1]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.mul_blocks = nn.Sequential(*(LocalBlock(width) for _ in range(NUM_BLOCKS)))
        self.add_blocks = nn.Sequential(*(LocalBlock(width) for _ in range(NUM_BLOCKS)))
        self.mul_end = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1))
        self.add_end = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1))
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                fan_out = conv.kernel_size[0] * conv.kernel_size[1] * conv.out_channels
                nn.init.normal_(conv.weight, std=math.sqrt(2 * conv.groups / fan_out))
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = F.leaky_relu(self.conv1(image), SLOPE)
        factor = self.mul_end(self.mul_blocks(x) + x).relu()
        offset = self.add_end(self.add_blocks(x) + x).tanh()
        return factor, offset


class Embedding(nn.Module):
    """Features at a quarter of the size."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(
            nn.Conv2d(3, dim // 2, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim // 2),
            nn.GELU(),
            nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1),
            nn.BatchNorm2d(dim),
        )

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.proj(image)
        return out


class QueryAttention(nn.Module):
    """Attention of learned queries over all pixels; keys and values have no bias."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.q = nn.Parameter(torch.ones(1, QUERIES, dim))
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, statistics: GlobalPooling) -> Tensor:
        """(N, D, H, W) -> (N, QUERIES, D), float32."""
        size = x.shape[1] // HEADS
        # q (k x) = (q k) x: one map per head and query, in place of keys of all channels
        keys = self.k.weight.reshape(HEADS, size, -1)
        queries = self.q[0].reshape(QUERIES, HEADS, size).transpose(0, 1) * size**-0.5
        scores = F.conv2d(x, (queries @ keys).reshape(HEADS * QUERIES, -1, 1, 1))
        values = F.conv2d(x, self.v.weight[:, :, None, None])
        pooled = statistics.attention_pool(values, scores, heads=HEADS)
        return precise(self.proj, pooled[..., 0].transpose(1, 2))


class Generator(nn.Module):
    """Features -> (N, QUERIES, D), float32, that the two parameters are read from."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.pos_embed = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = QueryAttention(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Perceptron(nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, statistics: GlobalPooling) -> Tensor:
        x = x + self.pos_embed(x)
        tokens = self.attn(self.norm1(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), statistics)
        normed = F.layer_norm(
            tokens, tokens.shape[-1:], self.norm2.weight.float(), self.norm2.bias.float()
        )
        hidden = F.gelu(precise(self.mlp.fc1, normed))
        out: Tensor = tokens + precise(self.mlp.fc2, hidden)
        return out


class GlobalBranch(nn.Module):
    """(N, 3, H, W) -> gamma (N, 1, 1, 1) and colour matrix (N, 3, 3) of each image, float32."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma_base = nn.Parameter(torch.ones(1))
        self.color_base = nn.Parameter(torch.eye(3))
        self.conv_large = Embedding(dim)
        self.generator = Generator(dim)
        self.gamma_linear = nn.Linear(dim, 1)
        self.color_linear = nn.Linear(dim, 1)
        for linear in self.modules():
            if isinstance(linear, nn.Linear):
                nn.init.trunc_normal_(linear.weight, std=0.02)
                if linear.bias is not None:
                    nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.generator.attn.v.weight)

    def forward(self, image: Tensor, statistics: GlobalPooling) -> tuple[Tensor, Tensor]:
        tokens = self.generator(self.conv_large(image), statistics)
        gamma = precise(self.gamma_linear, tokens[:, 0]) + self.gamma_base.float()
        colour = precise(self.color_linear, tokens[:, 1:]).reshape(-1, 3, 3)
        return gamma[:, :, None, None], colour + self.color_base.float()


class IAT(Network):
    """A factor and offset per pixel, then a colour matrix and gamma per image.

    91,154 parameters in the paper's configuration. The output is in [1e-8, 1].
    """

    num_statistics = 1

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.local_net = LocalBranch(width)
        self.global_net = GlobalBranch(4 * width)

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        low = image.to(self.local_net.conv1.weight.dtype)
        # first, so that a pass that collects its statistics ends before the costly part
        gamma, colour = self.global_net(low, statistics)
        factor, offset = self.local_net(low)
        local = image * factor + offset
        mixed = torch.einsum("ncd,ndhw->nchw", colour, local.float())
        out: Tensor = mixed.clamp(DARKEST, 1.0) ** gamma
        return out


def precise(linear: nn.Module, x: Tensor) -> Tensor:
    """A linear layer in float32: a rounded gamma changes the brightness of the whole image."""
    assert isinstance(linear, nn.Linear)
    bias = None if linear.bias is None else linear.bias.float()
    return F.linear(x.float(), linear.weight.float(), bias)
