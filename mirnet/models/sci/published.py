"""The published checkpoints of SCI, which also hold the network of their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mirnet.errors import WeightsError
from mirnet.models.published import PublishedFormat, dimension, plain_weights

# of training, and a second name of the tensors of enhance.conv
_UNUSED = ("calibrate.", "enhance.blocks.")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = state.get("enhance.in_conv.0.weight")
    return None if first is None else {"width": dimension(first)}


def _weights(state: Mapping[str, Tensor], sizes: Any) -> dict[str, Tensor]:
    for name, value in state.items():
        if name.startswith("enhance.blocks."):
            first = f"enhance.conv.{name.split('.', 3)[3]}"
            if first not in state or not torch.equal(state[first], value):
                raise WeightsError(f"{name} and {first} are one tensor and differ")
    used = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    return plain_weights(used, sizes)


FORMAT = PublishedFormat(_sizes, _weights)
