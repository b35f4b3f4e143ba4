"""The published checkpoints of MIRNet: their names for its modules, and ours."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from mirnet.models.layers.residual_checkpoint import renamed, sizes_of
from mirnet.models.mirnet.entry import MIRNetSizes
from mirnet.models.published import PublishedFormat

_DAU = {
    "body.0": "conv1",
    "body.1": "activation",
    "body.2": "conv2",
    "SA.spatial.conv": "spatial.conv",
    "CA.conv_du.0": "channel.squeeze",
    "CA.conv_du.2": "channel.expand",
    "conv1x1": "fuse",
}
_DOWN = {
    "top.0": "reduce",
    "top.1": "activation1",
    "top.2": "conv",
    "top.3": "activation2",
    "top.5": "expand",
    "bot.1": "skip",
}
_UP = {theirs: ours for theirs, ours in _DOWN.items() if theirs != "top.5"} | {"top.4": "expand"}
_SKFF = {"conv_du.0": "squeeze", "conv_du.1": "activation"} | {
    f"fcs.{i}": f"expand.{i}" for i in range(3)
}


def block_names(n_feat: int) -> dict[str, str]:
    """In a block: their module -> ours. Resizers are named after channels and scale."""
    names = {"conv_out": "conv"}
    for row in range(3):
        for column in range(2):
            names |= {f"blocks.{row}.{column}.{a}": f"attention.{row}.{b}" for a, b in _DAU.items()}
        names |= {f"selective_kernel.{row}.{a}": f"fusion.{row}.{b}" for a, b in _SKFF.items()}
    for source in range(3):
        for target in range(3):
            steps = target - source
            kind, table = ("down", _DOWN) if steps > 0 else ("up", _UP)
            theirs = f"{kind}.{n_feat * 2**source}_{2 ** abs(steps)}"
            for k in range(abs(steps)):
                names |= {
                    f"{theirs}.body.{k}.{a}": f"exchange.{source}_{target}.{k}.{b}"
                    for a, b in table.items()
                }
    for row in (1, 2):
        for k in range(row):
            names |= {
                f"last_up.{row}.body.{k}.{a}": f"last.{row - 1}.{k}.{b}" for a, b in _UP.items()
            }
    return names


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int] | None:
    return None if any(".dau_top." in key for key in state) else sizes_of(state)


def _weights(state: Mapping[str, Tensor], sizes: MIRNetSizes) -> dict[str, Tensor]:
    names = block_names(sizes.n_feat)
    return renamed(state, names, num_rrg=sizes.num_rrg, num_msrb=sizes.num_msrb)


FORMAT = PublishedFormat(_sizes, _weights)
