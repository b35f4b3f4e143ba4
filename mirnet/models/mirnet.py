"""MIRNet: Zamir et al., Learning Enriched Features for Real Image Restoration, ECCV 2020."""

from __future__ import annotations

from torch import Tensor, nn

from mirnet.models.attention import DualAttention, SelectiveKernelFusion
from mirnet.models.resize import resize
from mirnet.models.statistics import WHOLE, Statistics

NUM_ROWS = 3


class MultiScaleBlock(nn.Module):
    """MSRB: three rows at scales 1, 1/2, 1/4 that exchange features (section 3, fig. 1).

    (N, C, H, W) -> (N, C, H, W); H and W multiples of 4, at least 8.
    """

    # how many global averages one pass asks for
    num_statistics = 10

    def __init__(self, channels: int, *, activation: nn.Module) -> None:
        super().__init__()
        widths = [channels * 2**row for row in range(NUM_ROWS)]
        # both columns of a row use the same unit, in the paper's parameter count as well
        self.attention = nn.ModuleList(DualAttention(w, activation=activation) for w in widths)
        self.fusion = nn.ModuleList(
            SelectiveKernelFusion(w, num_streams=NUM_ROWS, activation=nn.PReLU()) for w in widths
        )
        # first, on the way down the first column; the same modules link neighbours in the mesh
        self.exchange = nn.ModuleDict(
            {
                f"{source}_{target}": resize(widths[source], steps=target - source)
                for source in range(NUM_ROWS)
                for target in range(NUM_ROWS)
                if source != target
            }
        )
        self.last = nn.ModuleList(resize(widths[row], steps=-row) for row in range(1, NUM_ROWS))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, statistics: Statistics = WHOLE) -> Tensor:
        rows = [self.attention[0](x, statistics)]
        for row in range(1, NUM_ROWS):
            below = self.exchange[f"{row - 1}_{row}"](rows[-1])
            rows.append(self.attention[row](below, statistics))
        mixed = []
        for target in range(NUM_ROWS):
            streams = [
                rows[source]
                if source == target
                else self.exchange[f"{source}_{target}"](rows[source])
                for source in range(NUM_ROWS)
            ]
            fused = self.fusion[target](streams, statistics)
            mixed.append(self.attention[target](fused, statistics))
        full = [mixed[0], *(up(row) for up, row in zip(self.last, mixed[1:], strict=True))]
        out: Tensor = x + self.conv(self.fusion[0](full, statistics))
        return out


class ResidualGroup(nn.Module):
    """RRG: multi-scale blocks and a convolution, plus the input (section 3)."""

    def __init__(self, channels: int, *, num_blocks: int, activation: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            MultiScaleBlock(channels, activation=activation) for _ in range(num_blocks)
        )
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, statistics: Statistics = WHOLE) -> Tensor:
        y = x
        for block in self.blocks:
            y = block(y, statistics)
        out: Tensor = x + self.conv(y)
        return out


class MIRNet(nn.Module):
    """The network: (N, 3, H, W) in [0, 1] -> (N, 3, H, W), unclamped.

    H and W are multiples of ``size_multiple``, at least ``min_size``. No bias and no
    normalisation anywhere. 31,787,419 parameters in the paper's configuration.
    """

    size_multiple = 4
    min_size = 8

    def __init__(self, *, n_feat: int = 64, num_rrg: int = 3, num_msrb: int = 2) -> None:
        super().__init__()
        # one for all dual attention units, as in the published network
        activation = nn.PReLU()
        self.conv_in = nn.Conv2d(3, n_feat, 3, padding=1, bias=False)
        self.groups = nn.ModuleList(
            ResidualGroup(n_feat, num_blocks=num_msrb, activation=activation)
            for _ in range(num_rrg)
        )
        self.conv_out = nn.Conv2d(n_feat, 3, 3, padding=1, bias=False)

    def forward(self, image: Tensor, statistics: Statistics = WHOLE) -> Tensor:
        # bf16 weights work on a float32 image, whose sum with the residual stays float32
        features = self.conv_in(image.to(self.conv_in.weight.dtype))
        for group in self.groups:
            features = group(features, statistics)
        out: Tensor = image + self.conv_out(features)
        return out
