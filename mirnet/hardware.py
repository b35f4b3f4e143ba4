"""What the processors and tools of this machine can do for a network."""

from __future__ import annotations

import logging
import platform
import shutil
import struct
import sys
import time
from pathlib import Path

import torch

from mirnet.config import set_kernel_cache
from mirnet.params import TrainPrecision

logger = logging.getLogger(__name__)

_LINKING_S = 60.0


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 convolutions run on units of their own here."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def describe_processor() -> str:
    """What rounds like this machine: ``cuda NVIDIA H200``, or ``cpu x86_64 AVX512 bf16``."""
    if torch.cuda.is_available():
        return f"cuda {torch.cuda.get_device_name()}"
    bf16 = " bf16" if has_fast_bf16(torch.device("cpu")) else ""
    return f"cpu {platform.machine()} {torch.backends.cpu.get_cpu_capability()}{bf16}"


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


def use_kernel_cache(directory: Path) -> None:
    """Share the code of ``torch.compile`` with other processes, unless the user chose a folder.

    What a process that was killed left unfinished there is removed, on Linux.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    set_kernel_cache(directory, default=default_cache_dir())
    _remove_broken_libraries(Path(cache_dir()))


def _remove_broken_libraries(folder: Path) -> None:
    """A linker that is killed leaves a part of a library under its final name: every later process
    would fail to load it, or take the processor for an older one, and go without compilation.
    """
    for library in folder.rglob("*.so"):
        if not _is_whole(library):
            logger.warning("%s is not whole: it is removed and compiled again", library)
            library.unlink(missing_ok=True)


def _is_whole(library: Path) -> bool:
    """By the table of sections, which stands at the end of a 64-bit ELF file."""
    if sys.platform != "linux":
        return True
    try:
        with library.open("rb") as file:
            header = file.read(64)
        status = library.stat()
    except OSError:  # gone, or not ours
        return True
    if abs(time.time() - status.st_mtime) < _LINKING_S:
        return True  # perhaps another process is just writing it
    if len(header) < 64:
        return False
    if header[:6] != b"\x7fELF\x02\x01":
        return True
    (table,) = struct.unpack_from("<Q", header, 40)
    entry_size, num_entries = struct.unpack_from("<HH", header, 58)
    return bool(table + entry_size * num_entries <= status.st_size)
