"""The U-Net of Learning to See in the Dark (Chen et al., CVPR 2018), from sRGB to sRGB.

The published network reads packed raw data. This form has its layers with three channels at both
ends and no depth-to-space; without an amplification ratio, the network learns the gain.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.network import Network

SLOPE = 0.2
LEVELS = 5


class SID(Network):
    """7,759,683 parameters in the paper's configuration; the output may leave [0, 1]."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        widths = [3, *(width * 2**level for level in range(LEVELS))]
        for level in range(1, LEVELS + 1):
            self._add_pair(level, widths[level - 1], widths[level])
        for number, level in zip(range(6, 10), range(4, 0, -1), strict=True):
            coarse, fine = widths[level + 1], widths[level]
            up = nn.ConvTranspose2d(coarse, fine, 2, stride=2, bias=False)
            nn.init.trunc_normal_(up.weight, std=0.02)
            self.add_module(f"upv{number}", up)
            self._add_pair(number, coarse, fine)
        self.conv10_1 = nn.Conv2d(width, 3, 1)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def _add_pair(self, number: int, in_channels: int, out_channels: int) -> None:
        for place, channels in ((1, in_channels), (2, out_channels)):
            conv = nn.Conv2d(channels, out_channels, 3, padding=1)
            self.add_module(f"conv{number}_{place}", conv)

    def forward(self, image: Tensor) -> Tensor:
        def pair(number: int, x: Tensor) -> Tensor:
            for place in (1, 2):
                x = F.leaky_relu(self.get_submodule(f"conv{number}_{place}")(x), SLOPE)
            return x

        x = pair(1, image.to(self.conv10_1.weight.dtype))
        skips = []
        for level in range(2, LEVELS + 1):
            skips.append(x)
            x = pair(level, F.max_pool2d(x, 2, ceil_mode=True))
        for number in range(6, 10):
            skip = skips.pop()
            up = self.get_submodule(f"upv{number}")(x)[:, :, : skip.shape[2], : skip.shape[3]]
            x = pair(number, torch.cat([up, skip], dim=1))
        out: Tensor = self.conv10_1(x)
        return out.float()
