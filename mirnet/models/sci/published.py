"""The published checkpoints of SCI, which also hold the network of their training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, dimension, plain_weights

# of training, and a second name of the tensors of enhance.conv
_UNUSED = ("calibrate.", "enhance.blocks.")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = state.get("enhance.in_conv.0.weight")
    return None if first is None else {"width": dimension(first)}


def _weights(state: Mapping[str, Tensor], sizes: Any) -> dict[str, Tensor]:
    used = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    return plain_weights(used, sizes)


FORMAT = PublishedFormat(_sizes, _weights)
