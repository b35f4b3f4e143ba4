"""Attention and fusion blocks of MIRNet and MIRNet-v2.

All take and give (N, C, H, W). Sums are written as plain additions and 1x1 convolutions of
concatenations as sums of two 1x1 convolutions: equal results, no copies of whole maps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models import ops
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.resize import LazyUpsample


class SelectiveKernelFusion(nn.Module):
    """SKFF: softmax-weighted sum of streams, one weight per channel (MIRNet section 3.1, eq. 1-2).

    MIRNet uses a PReLU, MIRNet-v2 a LeakyReLU of slope 0.2.
    """

    def __init__(self, channels: int, *, num_streams: int, activation: nn.Module) -> None:
        super().__init__()
        hidden = max(channels // 8, 4)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.activation = activation
        self.expand = nn.ModuleList(
            nn.Conv2d(hidden, channels, 1, bias=False) for _ in range(num_streams)
        )

    def forward(
        self, streams: Sequence[Tensor | LazyUpsample], statistics: GlobalPooling = FULL_IMAGE
    ) -> Tensor:
        parts = [
            part for s in streams for part in (s.parts if isinstance(s, LazyUpsample) else (s,))
        ]
        hidden = self.activation(self.squeeze(statistics.mean(*parts)))
        scores = torch.stack([expand(hidden) for expand in self.expand])
        weights = ops.materialized(scores.softmax(dim=0))
        weighted = [stream * weight for stream, weight in zip(streams, weights, strict=True)]
        fused: Tensor = weighted[0]
        for stream in weighted[1:]:
            fused = fused + stream
        return fused


class SpatialAttention(nn.Module):
    """One gate per pixel from the maximum and mean over channels (MIRNet section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 5, padding=2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, 1, H, W) in (0, 1)."""
        gate: Tensor = self.conv(ops.max_and_mean(x)).sigmoid()
        return gate


class ChannelAttention(nn.Module):
    """One gate per channel from the global average (MIRNet section 3.2; Hu et al., CVPR 2018)."""

    def __init__(self, channels: int, *, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.expand = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, C, 1, 1) of global averages -> (N, C, 1, 1) in (0, 1)."""
        gate: Tensor = self.expand(F.relu(self.squeeze(pooled))).sigmoid()
        return gate


class DualAttention(nn.Module):
    """DAU: two 3x3 convolutions, then spatial and channel attention in parallel.

    MIRNet section 3.2. The published network shares one PReLU among all of its DAUs, so the
    activation is passed in.
    """

    def __init__(self, channels: int, *, activation: nn.Module) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.activation = activation
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.spatial = SpatialAttention()
        self.channel = ChannelAttention(channels)
        self.fuse = nn.Conv2d(2 * channels, channels, 1, bias=False)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        r = self.conv2(ops.conv_act(self.conv1, self.activation, x))
        gates = self.channel(statistics.mean(r))
        # fuse(cat(s * r, c * r)) = s * (by_pixel r) + by_channel (c * r): s is one number per pixel
        for_pixels, for_channels = self._parts(r, gates)
        out: Tensor = x + self.spatial(r) * for_pixels + for_channels
        return out

    def _parts(self, r: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        """``by_pixel r`` and ``by_channel (c * r)``."""
        by_pixel, by_channel = self.fuse.weight.chunk(2, dim=1)
        if torch.compiler.is_exporting() or gates.shape != (1, r.shape[1], 1, 1):
            return F.conv2d(r, by_pixel), F.conv2d(r * gates, by_channel)
        # one gate per channel for the whole batch is folded into the weight: one pass over the map
        weight = torch.cat((by_pixel, by_channel * gates.reshape(1, -1, 1, 1)))
        first, second = F.conv2d(r, weight).chunk(2, dim=1)
        return first, second


class ContextBlock(nn.Module):
    """Global context added to every pixel (MIRNet-v2 section 3.3; Cao et al., GCNet 2019)."""

    def __init__(self, channels: int, *, slope: float) -> None:
        super().__init__()
        # none of these is grouped, unlike the 3x3 convolutions around
        self.mask = nn.Conv2d(channels, 1, 1, bias=False)
        self.squeeze = nn.Conv2d(channels, channels, 1, bias=False)
        self.expand = nn.Conv2d(channels, channels, 1, bias=False)
        self.slope = slope

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        context = statistics.attention_pool(x, self.mask(x))
        shift: Tensor = self.expand(F.leaky_relu(self.squeeze(context), self.slope))
        return x + shift


class ResidualContext(nn.Module):
    """RCB: two 3x3 convolutions, context, plus the input (MIRNet-v2 section 3.3)."""

    def __init__(self, channels: int, *, groups: int, slope: float = 0.2) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=groups, bias=False)
        self.context = ContextBlock(channels, slope=slope)
        self.activation = nn.LeakyReLU(slope)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        r = self.conv2(ops.conv_act(self.conv1, self.activation, x))
        out: Tensor = x + self.activation(self.context(r, statistics))
        return out
