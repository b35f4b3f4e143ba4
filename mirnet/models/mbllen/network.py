"""MBLLEN: Lv et al., BMVC 2018. Every layer has a ReLU, also the last."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from mirnet.models.network import Network

# channels between the 5x5 convolutions of a block, and between the transposed ones
INWARDS = (8, 8, 16, 32)
OUTWARDS = (32, 16, 8, 3)
POSITIVE = 0.1  # first bias of the last layer, whose ReLU has no gradient below 0


class Enhancement(nn.Module):
    """EM: features (N, C, H, W) -> (N, 3, H, W), through maps that are 12 pixels smaller."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, INWARDS[0], 3, padding=1)
        self.inwards = nn.ModuleList(nn.Conv2d(*pair, 5) for pair in itertools.pairwise(INWARDS))
        self.outwards = nn.ModuleList(
            nn.ConvTranspose2d(*pair, 5) for pair in itertools.pairwise(OUTWARDS)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in (self.first, *self.inwards, *self.outwards):
            x = layer(x).relu()
        return x


class MBLLEN(Network):
    """Enhancement at each depth of a chain of features, and their mixture.

    450,171 parameters in the paper's configuration; sides of at least 13.
    """

    def __init__(self, *, width: int, blocks: int) -> None:
        super().__init__()
        self.features = nn.ModuleList(
            nn.Conv2d(width if number else 3, width, 3, padding=1) for number in range(blocks)
        )
        self.enhancements = nn.ModuleList(Enhancement(width) for _ in range(blocks))
        self.fusion = nn.Conv2d(3 * blocks, 3, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)
        assert self.fusion.bias is not None
        nn.init.constant_(self.fusion.bias, POSITIVE)

    def forward(self, image: Tensor) -> Tensor:
        x = image.to(self.fusion.weight.dtype)
        enhanced = []
        for feature, enhancement in zip(self.features, self.enhancements, strict=True):
            x = feature(x).relu()
            enhanced.append(enhancement(x))
        out: Tensor = self.fusion(torch.cat(enhanced, dim=1)).relu()
        return out.float()
