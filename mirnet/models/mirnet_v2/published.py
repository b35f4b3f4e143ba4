"""The published checkpoints of MIRNet-v2: their names for its modules, and ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mirnet.models.layers.residual_checkpoint import renamed, sizes_of
from mirnet.models.mirnet_v2.entry import MIRNetV2Sizes
from mirnet.models.published import PublishedFormat

_RCB = {
    "body.0": "conv1",
    "body.2": "conv2",
    "gcnet.conv_mask": "context.mask",
    "gcnet.channel_add_conv.0": "context.squeeze",
    "gcnet.channel_add_conv.2": "context.expand",
}
_SKFF = {"conv_du.0": "squeeze", "fcs.0": "expand.0", "fcs.1": "expand.1"}
# in a block: their module -> ours
BLOCK_NAMES = {
    "down2.body.0.bot.1": "down_mid.conv",
    "down4.0.body.0.bot.1": "down_bot.0.conv",
    "down4.1.body.0.bot.1": "down_bot.1.conv",
    "up21_1.body.0.bot.0": "up_top.0.conv",
    "up21_2.body.0.bot.0": "up_top.1.conv",
    "up32_1.body.0.bot.0": "up_mid.0.conv",
    "up32_2.body.0.bot.0": "up_mid.1.conv",
    "conv_out": "conv",
    **{
        f"dau_{row}.{a}": f"context_{row}.{b}"
        for row in ("top", "mid", "bot")
        for a, b in _RCB.items()
    },
    **{f"skff_{row}.{a}": f"fusion_{row}.{b}" for row in ("top", "mid") for a, b in _SKFF.items()},
}


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    return sizes_of(state) if any(".dau_top." in key for key in state) else None


def _weights(state: Mapping[str, Tensor], sizes: MIRNetV2Sizes) -> dict[str, Tensor]:
    return renamed(state, BLOCK_NAMES, num_rrg=sizes.num_rrg, num_msrb=sizes.num_msrb)


FORMAT = PublishedFormat(_sizes, _weights)
