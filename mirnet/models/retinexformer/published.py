"""The published checkpoints of Retinexformer: sizes from their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, count_modules, dimension, plain_weights

_LEVELS = ("encoder_layers.0.0.blocks", "encoder_layers.1.0.blocks", "bottleneck.blocks")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = state.get("body.0.estimator.depth_conv.weight")
    if first is None:
        return None
    return {
        "n_feat": dimension(first),
        "stages": count_modules(state, "body"),
        "num_blocks": [count_modules(state, f"body.0.denoiser.{level}") for level in _LEVELS],
    }


FORMAT = PublishedFormat(_sizes, plain_weights)
