"""How many pixels fit into memory at once."""

from __future__ import annotations

import psutil
import torch

from mirnet.models.architecture import Architecture

GIB = 1024**3
MAX_DEFAULT_GIB = 3.0
MAX_TILE = 2048
# the rest is for the allocator's gaps and the image itself, measured
SHARE_OF_MAPS = 0.75
# full-resolution maps of n_feat channels alive at the peak, measured: docs/inference.md
PEAK_MAPS = {"mirnet": 17.0, "mirnet-v2": 13.0}


def default_limit(device: torch.device) -> float:
    """Bytes that one enhancement may use unless told otherwise: half of what is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free / 2
    return min(psutil.virtual_memory().available / 2, MAX_DEFAULT_GIB * GIB)


def max_pixels(architecture: Architecture, *, dtype: torch.dtype, limit: float) -> int:
    """Pixels that the network can take at once within ``limit`` bytes."""
    bytes_a_pixel = PEAK_MAPS[architecture.network] * architecture.n_feat * dtype.itemsize
    return int(limit * SHARE_OF_MAPS / bytes_a_pixel)
