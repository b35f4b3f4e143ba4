"""The published checkpoints of LLFlow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.layers.conditional_flow import LEVELS, PLAIN_STEPS
from mirnet.models.published import PublishedFormat, count_modules, dimension, plain_weights

# no output depends on them
_UNUSED = (
    *("RRDB.downconv3.", "RRDB.HRconv.", "RRDB.conv_last.", "RRDB.awb_para."),
    "flowUpsamplerNet.f.",
)
_FLOW = "flowUpsamplerNet.layers"


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = state.get("RRDB.conv_first.weight")
    growth = state.get("RRDB.RRDB_trunk.0.RDB1.conv1.weight")
    # the first step with a coupling, behind a squeeze
    coupling = state.get(f"{_FLOW}.{1 + PLAIN_STEPS}.affine.fFeatures.0.weight")
    if first is None or growth is None or coupling is None:
        return None
    width = dimension(first)
    return {
        "width": width,
        "growth": dimension(growth),
        "blocks": count_modules(state, "RRDB.RRDB_trunk"),
        "kept": dimension(coupling, 1) // max(width, 1) - 1,
        "steps": count_modules(state, _FLOW) // LEVELS - 1 - PLAIN_STEPS,
        "hidden": dimension(coupling),
    }


def _weights(state: Mapping[str, Tensor], sizes: Any) -> dict[str, Tensor]:
    used = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    return plain_weights(used, sizes)


FORMAT = PublishedFormat(_sizes, _weights)
