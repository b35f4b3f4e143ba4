"""What the processors and tools of this machine can do for a network."""

from __future__ import annotations

import shutil

import torch

from mirnet.params import TrainPrecision


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 convolutions run on units of their own here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def resolve_dtype(precision: TrainPrecision, device: torch.device) -> torch.dtype:
    """The type to compute in; ``auto`` is bf16 where the hardware has units for it."""
    if precision == "auto":
        precision = "bf16" if has_fast_bf16(device) else "float32"
    return {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def find_compiler() -> str | None:
    """Path of the C++ compiler that ``torch.compile`` calls at run time on a CPU.

    Looks for the names that torch tries, without starting them as torch's own search does.
    """
    import torch._inductor.config as inductor

    found = (shutil.which(name) for name in inductor.cpp.cxx if name)
    return next((path for path in found if path), None)
