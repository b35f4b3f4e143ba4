"""The hybrid loss of LYT-Net: Brateanu et al., IEEE Signal Processing Letters 2025.

Each on the output of the network and the reference, (N, 3, H, W) both -> (N,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.objectives.total import Term

_LEVELS, _SIGMA = 256, 0.01
_FINE = 4  # steps between two levels, for an exact sum in two parts
_WINDOW, _WINDOW_SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_LEAST = 1e-6  # a power of zero has no gradient


def smooth_l1(output: Tensor, target: Tensor) -> Tensor:
    """Half the squared difference up to a difference of 1, linear beyond; mean."""
    return F.smooth_l1_loss(output, target, reduction="none").mean((1, 2, 3))


def brightness(output: Tensor, target: Tensor) -> Tensor:
    """Absolute difference of the mean values."""
    return (output.mean((1, 2, 3)) - target.mean((1, 2, 3))).abs()


def soft_histogram(image: Tensor) -> Tensor:
    """Shares of 256 levels in the values of an image, clamped to [0, 1]: (N, 256).

    Each value counts at every level by a Gaussian of sigma 0.01. It is shared linearly by two
    neighbours on a grid four times as fine first, and the grid is smoothed then: at 1e-3 of the
    plain sum, without its 256 values per value.
    """
    steps = _FINE * (_LEVELS - 1)
    place = image.flatten(1).clamp(0, 1) * steps
    below = place.detach().floor().clamp(max=steps - 1)
    upper = place - below
    grid = image.new_zeros(len(image), steps + 1)
    index = below.long()
    grid = grid.scatter_add(1, index, 1 - upper).scatter_add(1, index + 1, upper)
    levels, fine = (
        torch.linspace(0, 1, count, dtype=image.dtype, device=image.device)
        for count in (_LEVELS, steps + 1)
    )
    smoothed = grid @ torch.exp(-((fine[:, None] - levels) ** 2) / (2 * _SIGMA**2))
    return smoothed / smoothed.sum(1, keepdim=True)


def histogram(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the soft histograms.

    As the paper intends. The published training sums over the batch alone, so that every pixel has
    a histogram of its own and the term nearly vanishes.
    """
    return (soft_histogram(output) - soft_histogram(target)).abs().mean(1)


def ms_ssim(output: Tensor, target: Tensor) -> Tensor:
    """``1 - MS-SSIM`` (Wang et al., 2003), per channel.

    Five scales need sides above 160 pixels; smaller images have as many as their windows fit in,
    whose weights keep their proportions.
    """
    side = min(output.shape[2:])
    count = sum(side > (_WINDOW - 1) * 2**scale for scale in range(len(_SCALES)))
    total = sum(_SCALES[:count])
    similarity = output.new_ones(output.shape[:2])
    for number, weight in enumerate(_SCALES[:count], 1):
        luminance, structure = _similarities(output, target)
        value = luminance * structure if number == count else structure
        similarity = similarity * value.mean((2, 3)).clamp_min(_LEAST) ** (weight / total)
        padding = [side % 2 for side in output.shape[2:]]
        output, target = (F.avg_pool2d(image, 2, padding=padding) for image in (output, target))
    return 1 - similarity.mean(1)


def _similarities(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of luminance, and of contrast and structure, where the window fits."""
    offsets = torch.arange(_WINDOW, dtype=one.dtype, device=one.device) - _WINDOW // 2
    taps = torch.exp(-(offsets**2) / (2 * _WINDOW_SIGMA**2))
    taps = taps / taps.sum()
    window = torch.outer(taps, taps).expand(one.shape[1], 1, -1, -1)
    stacked = torch.cat([one, other, one * one, other * other, one * other])
    means = F.conv2d(stacked, window, groups=one.shape[1]).chunk(5)
    x, y, xx, yy, xy = means
    luminance = (2 * x * y + _C1) / (x * x + y * y + _C1)
    structure = (2 * (xy - x * y) + _C2) / (xx - x * x + yy - y * y + _C2)
    return luminance, structure


TERMS: dict[str, Term] = {
    "smooth-l1": lambda sample: smooth_l1(sample.output, sample.high),
    "brightness": lambda sample: brightness(sample.output, sample.high),
    "histogram": lambda sample: histogram(sample.output, sample.high),
    "ms-ssim": lambda sample: ms_ssim(sample.output, sample.high),
}
