"""Checkpoints of RetinexNet with the names and layout of TensorFlow, or with ours.

The authors publish two files of TensorFlow, one per part; this reads both parts in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, dimension, from_tensorflow

_PARTS = ("DecomNet", "RelightNet")


def _renamed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; what else files of TensorFlow hold, such as an older denoiser, is left out."""
    found = {}
    for name, value in state.items():
        layer, _, kind = name.rpartition("/")
        if kind in ("kernel", "bias") and name.startswith(_PARTS):
            suffix = "weight" if kind == "kernel" else "bias"
            found[f"{layer.replace('/', '.')}.{suffix}"] = from_tensorflow(value).float()
        elif not layer:
            found[name] = value.float()
    return found


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = _renamed(state).get("DecomNet.shallow_feature_extraction.weight")
    return None if first is None else {"width": dimension(first)}


def _weights(state: Mapping[str, Tensor], _: Any) -> dict[str, Tensor]:
    return _renamed(state)


FORMAT = PublishedFormat(_sizes, _weights)
