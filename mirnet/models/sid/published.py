"""Checkpoints of SID's sRGB form: under our names, or as its authors name the tensors of theirs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.errors import WeightsError
from mirnet.models.published import PublishedFormat, dimension, from_tensorflow

_UP = {"Variable": 6, "Variable_1": 7, "Variable_2": 8, "Variable_3": 9}


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {}
    for name, value in state.items():
        layer, _, kind = name.removeprefix("g_").partition("/")
        if name in _UP:
            found[f"upv{_UP[name]}.weight"] = from_tensorflow(value)
        elif kind in ("weights", "biases") and re.fullmatch(r"conv(\d_[12]|10)", layer):
            layer = "conv10_1" if layer == "conv10" else layer
            suffix = "weight" if kind == "weights" else "bias"
            found[f"{layer}.{suffix}"] = from_tensorflow(value)
        else:
            found[name] = value
    return found


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    renamed = _renamed(state)
    first = renamed.get("conv1_1.weight")
    if first is None or "conv10_1.weight" not in renamed:
        return None
    return {"width": dimension(first)}


def _weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    renamed = _renamed(state)
    channels = dimension(renamed["conv1_1.weight"], 1)
    if channels in (4, 9):
        raise WeightsError(f"SID on raw data with {channels} channels: only sRGB is supported")
    return {name: value.float() for name, value in renamed.items()}


FORMAT = PublishedFormat(_sizes, _weights)
