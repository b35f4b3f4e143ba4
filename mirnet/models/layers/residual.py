"""The structure of MIRNet and MIRNet-v2: residual groups of multi-scale blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import cast

from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network


class ResidualGroup(nn.Module):
    """RRG: multi-scale blocks and a convolution, plus the input (section 3 of both papers)."""

    def __init__(
        self, channels: int, *, make_block: Callable[[], nn.Module], num_blocks: int
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(make_block() for _ in range(num_blocks))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, statistics)
        out: Tensor = x + self.conv(y)
        return out


class ResidualNetwork(Network):
    """(N, 3, H, W) in [0, 1] -> (N, 3, H, W), unclamped: the image plus a residual.

    H and W are multiples of 4. No bias and no normalisation anywhere.

    Args:
        make_block: creates a multi-scale block of the group with the given number.
        n_feat: channels at full resolution.
        num_rrg: residual groups.
        num_msrb: blocks per group.
    """

    def __init__(
        self, make_block: Callable[[int], nn.Module], *, n_feat: int, num_rrg: int, num_msrb: int
    ) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(3, n_feat, 3, padding=1, bias=False)
        self.groups = nn.ModuleList(
            ResidualGroup(n_feat, make_block=partial(make_block, rrg), num_blocks=num_msrb)
            for rrg in range(num_rrg)
        )
        self.conv_out = nn.Conv2d(n_feat, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        # bf16 weights work on a float32 image, whose sum with the residual stays float32
        features = self.conv_in(image.to(self.conv_in.weight.dtype))
        for group in self.groups:
            features = group(features, statistics)
        out: Tensor = image + self.conv_out(features)
        return out

    def repeated_blocks(self) -> list[nn.Module]:
        return [block for group in self.groups for block in cast(ResidualGroup, group).blocks]
