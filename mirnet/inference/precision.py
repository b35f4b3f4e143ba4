"""Which arithmetic the hardware is good at."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "float32", "bf16"]


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 convolutions run on units of their own here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_dtype(precision: Precision, device: torch.device) -> torch.dtype:
    """The type in which the network computes."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "float32"
    return torch.bfloat16 if precision == "bf16" else torch.float32
