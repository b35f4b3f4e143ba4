"""Terms on reflectance R (N, 3, H, W) and illumination L (N, 1, H, W), in [0, 1]. Each -> (N,).

RetinexNet: Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018, in the form
of the published training. PairLIE: Fu et al., Learning a Simple Low-Light Image Enhancer From
Paired Low-Light Instances, CVPR 2023.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.objectives.total import Sample, Term

_GREY = (0.2989, 0.5870, 0.1140)
_EDGE = 10.0  # how fast the weight of a gradient falls at edges of the reflectance


def _distance(image: Tensor, wanted: Tensor) -> Tensor:
    return (image - wanted).abs().mean((1, 2, 3))


def _square(image: Tensor, wanted: Tensor) -> Tensor:
    return (image - wanted).square().mean((1, 2, 3))


def smoothness(illumination: Tensor, reflectance: Tensor) -> Tensor:
    """Gradients of the illumination, weighted by ``exp(-10 g)`` of the reflectance's."""
    grey = (reflectance * reflectance.new_tensor(_GREY)[:, None, None]).sum(1, keepdim=True)
    total = illumination.new_zeros(())
    for axis in (2, 3):
        edges = F.avg_pool2d(_gradient(grey, axis), 3, 1, 1, count_include_pad=False)
        total = total + _gradient(illumination, axis) * torch.exp(-_EDGE * edges)
    return total.mean((1, 2, 3))


def _gradient(maps: Tensor, axis: int) -> Tensor:
    """Absolute differences, one pixel down and right of where they are stored, 0 beyond.

    So the last row and column see an edge, as in the published training.
    """
    padded = F.pad(maps, (0, 1, 0, 1)).diff(dim=axis).abs()
    return padded[:, :, 1:] if axis == 3 else padded[..., 1:]


def _reconstruction(sample: Sample) -> Tensor:
    own = sample.details
    return _distance(own["reflectance"] * own["illumination"], sample.low) + _distance(
        own["reflectance_high"] * own["illumination_high"], sample.high
    )


def _exchange(sample: Sample) -> Tensor:
    own = sample.details
    return _distance(own["reflectance_high"] * own["illumination"], sample.low) + _distance(
        own["reflectance"] * own["illumination_high"], sample.high
    )


def _smoothness(sample: Sample) -> Tensor:
    own = sample.details
    return smoothness(own["illumination"], own["reflectance"]) + smoothness(
        own["illumination_high"], own["reflectance_high"]
    )


def _relight(sample: Sample) -> Tensor:
    """The decomposition is not moved: its reflectance has no gradient here."""
    return _distance(sample.details["reflectance"].detach() * sample.details["relit"], sample.high)


def _relight_smoothness(sample: Sample) -> Tensor:
    return smoothness(sample.details["relit"], sample.details["reflectance"].detach())


def variation(maps: Tensor) -> Tensor:
    """Mean absolute differences of pixels two apart, over rows plus over columns."""
    down = (maps[:, :, 2:] - maps[:, :, :-2]).abs().mean((1, 2, 3))
    return down + (maps[..., 2:] - maps[..., :-2]).abs().mean((1, 2, 3))


def _retinex(sample: Sample) -> Tensor:
    reflectance, illumination, projected = (
        sample.details[name] for name in ("reflectance", "illumination", "projected")
    )
    return (
        _square(illumination * reflectance, projected)
        + _square(reflectance, projected / illumination.detach())
        + _square(illumination, sample.low.amax(1, keepdim=True))
        + variation(illumination)
    )


TERMS: dict[str, Term] = {
    "retinex-reconstruction": _reconstruction,
    "retinex-exchange": _exchange,
    "retinex-reflectance": lambda sample: _distance(
        sample.details["reflectance"], sample.details["reflectance_high"]
    ),
    "retinex-smoothness": _smoothness,
    "retinex-relight": _relight,
    "retinex-relight-smoothness": _relight_smoothness,
    "pairlie-reflectance": lambda sample: _square(
        sample.details["reflectance"], sample.details["reflectance_high"]
    ),
    "pairlie-retinex": _retinex,
    "pairlie-projection": lambda sample: _square(sample.details["projected"], sample.low),
}
