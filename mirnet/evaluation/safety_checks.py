"""How a method behaves besides its scores: what it spoils, well lit pictures, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirnet.evaluation.baselines import Enhance
from mirnet.evaluation.metrics import psnr
from mirnet.images.harm import HarmLimits, judge
from mirnet.images.stats import shadows

_MIB = 2**20


def well_lit_psnr(enhance: Enhance, pictures: Sequence[NDArray[np.uint8]]) -> float:
    """Mean PSNR in dB between well lit pictures and what the method makes of them."""
    return sum(psnr(enhance(picture), picture) for picture in pictures) / len(pictures)


def guarded(enhance: Enhance, limits: HarmLimits, *, pass_luminance: float | None) -> Enhance:
    """The method as the batch uses it: what is bright enough, and what it would spoil, stays.

    Args:
        limits: from which on an output counts as spoilt.
        pass_luminance: of the shadows of a picture, from which on it stays; none: never.
    """

    def kept_or_enhanced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if pass_luminance is not None and shadows(pixels) >= pass_luminance:
            return pixels
        output = enhance(pixels)
        return pixels if judge(pixels, output, limits) else output

    return kept_or_enhanced


def harm_share(
    pictures: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], limits: HarmLimits
) -> float:
    """Share of (input, output) in which the output is spoilt."""
    harms = [judge(before, after, limits) is not None for before, after in pictures]
    return sum(harms) / len(harms)


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
