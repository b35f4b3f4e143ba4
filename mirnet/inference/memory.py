"""The number of pixels that fit into memory, and the allocator's handling of freed memory."""

from __future__ import annotations

import ctypes
import functools
import sys

import torch

from mirnet.images.limits import free_memory
from mirnet.models.registry import NetworkConfig

GIB = 1024**3
MAX_DEFAULT_GIB = 3.0
# the rest is for the allocator's gaps, at worst as large as the maps, and for the image
SHARE_OF_MAPS = 0.5


def default_limit(device: torch.device) -> float:
    """Default memory limit of one enhancement in bytes: half of the free memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2
    return min(free_memory() / 2, MAX_DEFAULT_GIB * GIB)


def max_pixels(config: NetworkConfig, *, dtype: torch.dtype, limit: float) -> int:
    """Pixels per pass of the network within ``limit`` bytes."""
    peak_bytes = config.architecture.peak_values(config.sizes) * dtype.itemsize
    return int(limit * SHARE_OF_MAPS / peak_bytes)


# malloc.h of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Make the C library reuse freed feature maps, for the rest of this process.

    By default glibc maps each block above 32 MiB anew, and the kernel zeroes its pages: a third
    of the time of large images (docs/benchmarks/inference.md). Affects all allocations of the main
    thread of this process; heaps of other threads are limited to 64 MiB and gain nothing.
    No effect with other C libraries.
    """
    libc = _glibc()
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return the memory kept by :func:`keep_freed_memory` to the system."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "gnu_get_libc_version") else None
