"""Losses on the unclamped output of the network, (N, 3, H, W) against the same -> (N,).

One value per sample lets a batch be split unevenly over workers and still average exactly.
No clamp before the loss: a clamped output has no gradient where its error is largest.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.image import structural_similarity_index_measure

from mirnet.params import LossName, TrainParams

_OVER_SAMPLE = (1, 2, 3)


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


def combined(output: Tensor, target: Tensor, recipe: TrainParams) -> Tensor:
    """The weighted sum of the recipe's terms -> (N,)."""
    eps = recipe.charbonnier_eps
    terms: dict[LossName, Callable[[Tensor, Tensor], Tensor]] = {
        "charbonnier": lambda a, b: charbonnier(a, b, eps=eps),
        "l1": l1,
        "l2": l2,
        "ssim": ssim_loss,
        "edge": lambda a, b: edge(a, b, eps=eps),
        "frequency": frequency,
    }
    values = [weight * terms[name](output, target) for name, weight in recipe.loss.items()]
    return torch.stack(values).sum(0)
