"""Losses on the unclamped output of the network, (N, 3, H, W) against the same -> (N,)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from mirnet.models.layers.hvi import HVI
from mirnet.objectives.total import Term

_OVER_SAMPLE = (1, 2, 3)
_OVER_MAP = (2, 3)


def charbonnier(output: Tensor, target: Tensor, *, eps: float) -> Tensor:
    """Mean of ``sqrt(d^2 + eps^2)`` (Zamir et al., ECCV 2020, equation 9) -> (N,)."""
    return torch.sqrt((output - target).square() + eps * eps).mean(_OVER_SAMPLE)


def l1(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference -> (N,)."""
    return (output - target).abs().mean(_OVER_SAMPLE)


def l2(output: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference -> (N,)."""
    return (output - target).square().mean(_OVER_SAMPLE)


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """``1 - SSIM`` with data range 1 and an 11x11 Gaussian (Wang et al., 2004) -> (N,)."""
    similarity = structural_similarity_index_measure(
        output, target, sigma=1.5, data_range=1.0, reduction="none"
    )
    assert isinstance(similarity, Tensor)
    return 1 - similarity


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
