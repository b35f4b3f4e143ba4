"""Arithmetic and compilation, where the machine has them."""

from __future__ import annotations

import logging
from typing import Literal

import torch
from torch import nn
from torch._inductor import cpp_builder, exc

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bf16", "fp16", "auto"]


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """The type to compute in; None is float32. ``auto`` takes bf16 where hardware has it."""
    if precision == "float32":
        return None
    if precision == "fp16":
        return torch.float16
    return torch.bfloat16 if precision == "bf16" or _has_fast_bf16(device) else None


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def compile_blocks(model: nn.Module) -> None:
    """Compile each multi-scale block by itself, for fixed shapes.

    Blocks are alike, so one compilation serves all; automatic dynamic shapes fail in inductor.
    Without a C++ compiler the model stays eager, with one warning.
    """
    if not has_compiler():
        logger.warning("train.compile: no C++ compiler here, training goes on without")
        return
    for group in model.groups:  # type: ignore[union-attr]
        for block in group.blocks:
            block.compile(dynamic=False)


def has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler."""
    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler:
        return False
    return True
