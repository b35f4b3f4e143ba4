"""The published checkpoints of Restormer: sizes from their tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirnet.models.published import PublishedFormat, count_modules, dimension, plain_weights

_LEVELS = ("encoder_level1", "encoder_level2", "encoder_level3", "latent")


def _sizes(state: Mapping[str, Tensor]) -> dict[str, Any] | None:
    first = state.get("patch_embed.proj.weight")
    scales = [state.get(f"{level}.0.attn.temperature") for level in _LEVELS]
    if first is None or any(scale is None for scale in scales):
        return None
    return {
        "dim": dimension(first),
        "num_blocks": [count_modules(state, level) for level in _LEVELS],
        "heads": [scale.numel() for scale in scales if scale is not None],
        "refinement": count_modules(state, "refinement"),
        "biased_norm": "latent.0.norm1.body.bias" in state,
    }


FORMAT = PublishedFormat(_sizes, plain_weights)
