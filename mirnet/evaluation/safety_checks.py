"""Safety checks of a method besides its scores: harmed outputs, well-lit images, memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirnet.evaluation.baselines import Enhance
from mirnet.evaluation.metrics import psnr
from mirnet.images.brightness import mixed, share_of_output
from mirnet.images.harm import HarmLimits, judge
from mirnet.images.stats import shadows

_MIB = 2**20


def well_lit_psnr(enhance: Enhance, images: Sequence[NDArray[np.uint8]]) -> float:
    """Mean PSNR in dB between well-lit images and the method's outputs for them."""
    return sum(psnr(enhance(image), image) for image in images) / len(images)


def guarded(enhance: Enhance, limits: HarmLimits, *, pass_luminance: float | None) -> Enhance:
    """The method as used by a batch: bright inputs and inputs with harmful outputs stay.

    Args:
        limits: above which an output counts as harmful.
        pass_luminance: value of ``shadows`` from which an image stays, and below which its output
            is mixed with it; none: no image does.
    """

    def kept_or_enhanced(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        share = share_of_output(shadows(pixels), pass_luminance)
        if share == 0:
            return pixels
        output = mixed(pixels, enhance(pixels), share).astype(np.uint8, copy=False)
        return pixels if judge(pixels, output, limits) else output

    return kept_or_enhanced


def harm_share(
    images: Sequence[tuple[NDArray[np.uint8], NDArray[np.uint8]]], limits: HarmLimits
) -> float:
    """Share of (input, output) pairs with a harmful output."""
    harms = [judge(before, after, limits) is not None for before, after in images]
    return sum(harms) / len(harms)


def peak_mib_per_megapixel(enhance: Enhance, pixels: NDArray[np.uint8]) -> float | None:
    """Peak memory of enhancing one image above that of the idle process, per megapixel.

    Resident memory of the whole process, from Linux; ``None`` elsewhere. Memory that the
    allocator kept from earlier images hides a part, so measure this first.
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
    """VmHWM, after a reset to the present size by writing 5 to clear_refs."""
    for line in status.read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / _MIB
    return float("nan")
