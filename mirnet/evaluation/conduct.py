"""How a method behaves besides its scores: on well lit pictures, and in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirnet.evaluation.baselines import Enhance
from mirnet.evaluation.metrics import psnr

_MIB = 2**20


def well_lit_psnr(enhance: Enhance, pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Mean PSNR in dB between well lit pictures and what the method makes of them."""
    return sum(psnr(enhance(picture), picture) for picture in pictures) / len(pictures)


def peak_mib_per_megapixel(enhance: Enhance, pixels: NDArray[np.uint8]) -> float | None:
    """Most memory that enhancing one picture takes beyond what the process had, by its size.

    Resident memory of the whole process, from Linux; ``None`` elsewhere. Memory that the
    allocator kept from earlier pictures hides a part, so measure before the others.
    """
    status = Path("/proc/self/status")
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _high_water_mib(status)
        enhance(pixels)
        after = _high_water_mib(status)
    except OSError:
        return None
    if math.isnan(before):
        return None
    megapixels = pixels.shape[0] * pixels.shape[1] / 1e6
    return float(max(after - before, 0.0) / megapixels)


def _high_water_mib(status: Path) -> float:
    """VmHWM, which writing 5 to clear_refs has set back to the present size."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MIB
    return float("nan")
