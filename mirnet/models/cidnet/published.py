"""The published checkpoints of HVI-CIDNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, dimension, plain_weights

_UNUSED = "I_LCA5."  # no output depends on it


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    stem = state.get("IE_block0.1.weight")
    if stem is None or "trans.density_k" not in state:
        return None
    return {"width": dimension(stem), "saturation": 1.0}


def _weights(state: Mapping[str, Tensor], sizes: Any) -> dict[str, Tensor]:
    used = {name: value for name, value in state.items() if not name.startswith(_UNUSED)}
    return plain_weights(used, sizes)


FORMAT = PublishedFormat(_sizes, _weights)
