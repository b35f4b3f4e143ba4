"""MIRNet: Zamir et al., Learning Enriched Features for Real Image Restoration, ECCV 2020."""

from __future__ import annotations

from torch import Tensor, nn

from mirnet.models import ops
from mirnet.models.layers.attention import DualAttention, SelectiveKernelFusion
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.residual import ResidualNetwork
from mirnet.models.layers.resize import resize


class MultiScaleBlock(nn.Module):
    """MSRB: rows at scales 1, 1/2, 1/4 that exchange features (section 3, fig. 1).

    (N, C, H, W) -> (N, C, H, W); H and W multiples of 4, at least 8. The paper has three rows.
    """

    def __init__(self, channels: int, *, num_streams: int, activation: nn.Module) -> None:
        super().__init__()
        self.num_streams = num_streams
        # number of global averages per pass: two units and a fusion per row, and the last fusion
        self.num_statistics = 3 * num_streams + 1
        widths = [channels * 2**row for row in range(num_streams)]
        # both columns of a row use the same unit, in the paper's parameter count as well
        self.attention = nn.ModuleList(DualAttention(w, activation=activation) for w in widths)
        self.fusion = nn.ModuleList(
            SelectiveKernelFusion(w, num_streams=num_streams, activation=ops.PReLU())
            for w in widths
        )
        # first, on the way down the first column; the same modules link neighbours in the mesh
        self.exchange = nn.ModuleDict(
            {
                f"{source}_{target}": resize(widths[source], steps=target - source)
                for source in range(num_streams)
                for target in range(num_streams)
                if source != target
            }
        )
        self.last = nn.ModuleList(resize(widths[row], steps=-row) for row in range(1, num_streams))
        self.conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        rows, below = [self.attention[0](x, statistics)], []
        for row in range(1, self.num_streams):
            below.append(self.exchange[f"{row - 1}_{row}"](rows[-1]))
            rows.append(self.attention[row](below[-1], statistics))
        mixed = []
        for target in range(self.num_streams):
            streams = []
            for source in range(self.num_streams):
                if source == target:
                    streams.append(rows[source])
                elif source == target - 1:
                    streams.append(below[source])  # made on the way down
                else:
                    streams.append(self.exchange[f"{source}_{target}"](rows[source]))
            fused = self.fusion[target](streams, statistics)
            mixed.append(self.attention[target](fused, statistics))
        full = [mixed[0], *(up(row) for up, row in zip(self.last, mixed[1:], strict=True))]
        out: Tensor = x + self.conv(self.fusion[0](full, statistics))
        return out


class MIRNet(ResidualNetwork):
    """The network of 2020. 31,787,419 parameters in the paper's configuration."""

    def __init__(
        self, *, n_feat: int = 64, num_rrg: int = 3, num_msrb: int = 2, num_streams: int = 3
    ) -> None:
        # one for all dual attention units, as in the published network
        activation = ops.PReLU()
        super().__init__(
            lambda _: MultiScaleBlock(n_feat, num_streams=num_streams, activation=activation),
            n_feat=n_feat,
            num_rrg=num_rrg,
            num_msrb=num_msrb,
        )
