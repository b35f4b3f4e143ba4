"""Losses on the unclamped output of the network, (N, 3, H, W) against the same -> (N,)."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.models.layers.hvi import HVI
from mirnet.objectives.total import Term

_OVER_SAMPLE = (1, 2, 3)
_OVER_MAP = (2, 3)
_WINDOW, _SIGMA = 11, 1.5
_DARKEST = 0.02
_C1, _C2 = 0.01**2, 0.03**2


def charbonnier(output: Tensor, target: Tensor, *, eps: float) -> Tensor:
    """Mean of ``sqrt(d^2 + eps^2)`` (Zamir et al., ECCV 2020, equation 9) -> (N,)."""
    return torch.sqrt((output - target).square() + eps * eps).mean(_OVER_SAMPLE)


def aligned(output: Tensor, target: Tensor, *, eps: float) -> Tensor:
    """Charbonnier after scaling each output to the mean of its target -> (N,).

    What is left to learn where the brightness of the target is a matter of luck (Liao et al.,
    GT-Mean Loss, arXiv:2507.20148). The factor has a gradient and is kept within 1/3 and 3.
    """
    level = output.mean(_OVER_SAMPLE, keepdim=True).clamp_min(_DARKEST)
    factor = (target.mean(_OVER_SAMPLE, keepdim=True) / level).clamp(1 / 3, 3)
    return charbonnier(output * factor, target, eps=eps)


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference -> (N,)."""
    return (output - target).abs().mean(_OVER_SAMPLE)


def l2(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference -> (N,)."""
    return (output - target).square().mean(_OVER_SAMPLE)


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """``1 - SSIM`` of images in [0, 1] with an 11x11 Gaussian (Wang et al., 2004) -> (N,).

    As the metric: the mean over the region where the window fits, of sides of 11 pixels or more.
    The target gets no gradient.
    """
    # channels last would be brought into this order once for each product
    output, target = output.contiguous(), target.contiguous()
    with torch.no_grad():
        mean_y, square_y = _window_means(torch.stack([target, target.square()]))
    maps = torch.stack([output, output.square(), output * target])
    mean_x, square_x, product = _window_means(maps)
    both, squares = mean_x * mean_y, mean_x.square() + mean_y.square()
    luminance = (2 * both + _C1) / (squares + _C1)
    # rounding can make variances of even regions negative
    variances = (square_x + square_y - squares).clamp_min(0)
    contrast = (2 * (product - both) + _C2) / (variances + _C2)
    loss: Tensor = 1 - (luminance * contrast).mean(_OVER_SAMPLE)
    return loss


def _window_means(maps: Tensor) -> Tensor:
    """(..., H, W) -> (..., H - 10, W - 10): weighted means where the window fits.

    Two matrix products, three times as fast on processors as the convolution of torchmetrics, which
    costs as much as a small network.
    """
    rows, columns = (_taps(size).to(maps) for size in maps.shape[-2:])
    means: Tensor = rows.T @ (maps @ columns)
    return means


@functools.lru_cache(maxsize=8)
def _taps(size: int) -> Tensor:
    """(size, size - 10) float64: each column the taps of a Gaussian window at its place."""
    places = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    taps = torch.exp(-places.square() / (2 * _SIGMA**2))
    taps /= taps.sum()
    offsets = torch.arange(size)[:, None] - torch.arange(size - _WINDOW + 1)
    inside = (offsets >= 0) & (offsets < _WINDOW)
    return torch.where(inside, taps[offsets.clamp(0, _WINDOW - 1)], 0.0)


def edge(output: Tensor, target: Tensor, *, eps: float) -> Tensor:
    """Charbonnier of the Laplacians (Zamir et al., MPRNet, CVPR 2021, equation 4) -> (N,)."""
    kernel = output.new_tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
    difference = F.pad(output - target, (1, 1, 1, 1), mode="replicate")
    laplacian = F.conv2d(difference, kernel.expand(3, 1, 3, 3), groups=3)
    return torch.sqrt(laplacian.square() + eps * eps).mean(_OVER_SAMPLE)


def frequency(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference of the 2-D spectra (Cho et al., MIMO-UNet, ICCV 2021) -> (N,)."""
    spectrum = torch.fft.rfft2(output - target, norm="ortho")
    return torch.view_as_real(spectrum).abs().mean((1, 2, 3, 4))


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """``(50 - PSNR) / 100`` (Yan et al., MobileIE, ICCV 2025) -> (N,).

    An image with half the error counts as much as any other: its gradient is divided by its error.
    """
    return 0.5 + 0.1 * torch.log10(l2(output, target) + 1e-8)


def outlier_aware(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, less where it is near its mean (LVW; Yan et al., 2025) -> (N,).

    The weight of a value is ``tanh`` of its distance from the mean difference of its channel, in
    standard deviations over the square root of 2; it has no gradient.
    """
    difference = output - target
    with torch.no_grad():
        deviation, mean = torch.std_mean(difference, _OVER_MAP, keepdim=True)
        weight = torch.tanh((difference - mean).abs() / (deviation / 2**0.5 + 1e-6))
    return (difference.abs() * weight).mean(_OVER_SAMPLE)


def cosine(output: Tensor, target: Tensor) -> Tensor:
    """``1 - cos`` of the angle between the colours of clamped output and target -> (N,)."""
    return 1 - F.cosine_similarity(output.clamp(0, 1), target, dim=1, eps=1e-8).mean((1, 2))


def in_hvi(image: Tensor) -> Tensor:
    """The image in HVI (Yan et al., CVPR 2025) with its initial density: (N, 3, H, W).

    It is clamped to [0, 1], outside of which the colour space is not defined. Colours of pixels
    below a grey level of 255 have no gradient: it grows without bound towards black.
    """
    space = HVI().to(image.device, image.dtype).requires_grad_(False)
    colour, value = space(image.clamp(0, 1)).split((2, 1), dim=1)
    black = value < 1 / 255
    return torch.cat([torch.where(black, colour.detach(), colour), value], dim=1)


def details_of(image: Tensor) -> Tensor:
    """What a level of a Laplacian pyramid keeps (Burt and Adelson, 1983): (N, 3, H, W).

    The image less its blurred self, of which every second pixel was taken.
    """
    every_second = image.new_zeros(image.shape[2:])
    every_second[::2, ::2] = 4.0
    return image - _blurred(_blurred(image) * every_second)


def _blurred(image: Tensor) -> Tensor:
    taps = image.new_tensor([0.05, 0.25, 0.4, 0.25, 0.05])
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
    return F.conv2d(padded, torch.outer(taps, taps).expand(3, 1, 5, 5), groups=3)


def pyramid_edge(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of the pyramids' first level (Yan et al., CVPR 2025) -> (N,)."""
    return l2(details_of(output), details_of(target))


TERMS: dict[str, Term] = {
    "charbonnier": lambda sample: charbonnier(sample.output, sample.high, eps=sample.eps),
    "aligned": lambda sample: aligned(sample.output, sample.high, eps=sample.eps),
    "l1": lambda sample: l1(sample.output, sample.high),
    "l2": lambda sample: l2(sample.output, sample.high),
    "ssim": lambda sample: ssim_loss(sample.output, sample.high),
    "edge": lambda sample: edge(sample.output, sample.high, eps=sample.eps),
    "frequency": lambda sample: frequency(sample.output, sample.high),
    "psnr": lambda sample: psnr(sample.output, sample.high),
    "lvw": lambda sample: outlier_aware(sample.output, sample.high),
    "hvi": lambda sample: l1(in_hvi(sample.output), in_hvi(sample.high)),
    "hvi-ssim": lambda sample: ssim_loss(in_hvi(sample.output), in_hvi(sample.high)),
    "hvi-pyramid-edge": lambda sample: pyramid_edge(in_hvi(sample.output), in_hvi(sample.high)),
    "pyramid-edge": lambda sample: pyramid_edge(sample.output, sample.high),
    "cosine": lambda sample: cosine(sample.output, sample.high),
}
