"""MIRNet-v2: Zamir et al., Learning Enriched Features for Fast Image Restoration, TPAMI 2022."""

from __future__ import annotations

from torch import Tensor, nn

from mirnet.models.layers.attention import ResidualContext, SelectiveKernelFusion
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.layers.residual import ResidualNetwork
from mirnet.models.layers.resize import AverageDown, BilinearUp

SLOPE = 0.2
GROUPS = (1, 2, 4, 4)


class MultiScaleBlockV2(nn.Module):
    """MRB: rows at scales 1, 1/2, 1/4, fused upwards twice (section 3.1, fig. 2).

    (N, C, H, W) -> (N, C, H, W); H and W multiples of 4.
    """

    # number of global averages per pass
    num_statistics = 10

    def __init__(self, channels: int, *, groups: int) -> None:
        super().__init__()
        top, mid, bot = channels, channels * 3 // 2, channels * 9 // 4
        self.down_mid = AverageDown(top, mid)
        self.down_bot = nn.Sequential(AverageDown(top, mid), AverageDown(mid, bot))
        self.context_top = ResidualContext(top, groups=groups, slope=SLOPE)
        self.context_mid = ResidualContext(mid, groups=groups, slope=SLOPE)
        self.context_bot = ResidualContext(bot, groups=groups, slope=SLOPE)
        self.fusion_mid = SelectiveKernelFusion(mid, num_streams=2, activation=nn.LeakyReLU(SLOPE))
        self.fusion_top = SelectiveKernelFusion(top, num_streams=2, activation=nn.LeakyReLU(SLOPE))
        self.up_mid = nn.ModuleList(BilinearUp(bot, mid) for _ in range(2))
        self.up_top = nn.ModuleList(BilinearUp(mid, top) for _ in range(2))
        self.conv = nn.Conv2d(top, top, 1, bias=False)

    def forward(self, x: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        top, mid, bot = x, self.down_mid(x), self.down_bot(x)
        for up_mid, up_top in zip(self.up_mid, self.up_top, strict=True):
            top = self.context_top(top, statistics)
            mid = self.context_mid(mid, statistics)
            bot = self.context_bot(bot, statistics)
            mid = self.fusion_mid((mid, up_mid(bot)), statistics)
            top = self.fusion_top((top, up_top(mid)), statistics)
        out: Tensor = x + self.conv(top)
        return out


class MIRNetV2(ResidualNetwork):
    """The network of 2022. 5,858,560 parameters in the paper's configuration."""

    def __init__(self, *, n_feat: int = 80, num_rrg: int = 4, num_msrb: int = 2) -> None:
        super().__init__(
            lambda rrg: MultiScaleBlockV2(n_feat, groups=GROUPS[min(rrg, len(GROUPS) - 1)]),
            n_feat=n_feat,
            num_rrg=num_rrg,
            num_msrb=num_msrb,
        )
