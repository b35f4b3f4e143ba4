"""The published checkpoints of MobileIE, in the form of training or folded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, dimension

_ADDED = ".weight1"  # to conv_out, in the second half of training (section 3.4)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    gates = {"att1.0.weight", "att1.0.conv.weight"}  # folded, of training
    body = state.get("body.bias")
    if body is None or body.dim() != 4 or not gates & state.keys():
        return None
    branch = state.get("body.block1.conv.weight")
    channels = dimension(body, 1)
    expansion = 0 if branch is None else dimension(branch) // max(channels, 1)
    return {"channels": channels, "expansion": expansion}


def _weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    weights = {k: v.float() for k, v in state.items() if not k.startswith("tail_warm.")}
    for out in [key for key in weights if key.endswith(".conv_out.weight")]:
        added = weights.pop(out.removesuffix(".conv_out.weight") + _ADDED, None)
        if added is not None and added.shape == weights[out].shape:
            weights[out] = weights[out] + added
    return weights


FORMAT = PublishedFormat(_sizes, _weights)
