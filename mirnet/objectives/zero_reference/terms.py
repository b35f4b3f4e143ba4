"""The four terms of Zero-DCE: Guo et al., Zero-Reference Deep Curve Estimation for Low-Light Image
Enhancement, CVPR 2020, section 3.3, in the form that gave the published weights. Each -> (N,).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.objectives.total import Term

EXPOSURE = 0.6
_OVER_SAMPLE = (1, 2, 3)
_TINY = 1e-16  # without it, the gradient for a grey image is not a number


def spatial_consistency(output: Tensor, low: Tensor) -> Tensor:
    """Squared change of the differences between 4x4 blocks and their four neighbours.

    Beyond the border a neighbour counts as 0.
    """
    change = F.avg_pool2d((output - low).mean(1, keepdim=True), 4)
    padded = F.pad(change, (1, 1, 1, 1))
    across, down = padded[:, :, 1:-1].diff(dim=3), padded[..., 1:-1].diff(dim=2)
    squares = [d.square() for d in (across[..., 1:], across[..., :-1], down[:, :, 1:])]
    return sum(squares, down[:, :, :-1].square()).mean(_OVER_SAMPLE)


def exposure(output: Tensor) -> Tensor:
    """Squared distance of the mean of 16x16 blocks from 0.6; a rest at the border is left out."""
    blocks = F.avg_pool2d(output.mean(1, keepdim=True), 16)
    return (blocks - EXPOSURE).square().mean(_OVER_SAMPLE)


def colour_balance(output: Tensor) -> Tensor:
    """Root of the fourth powers of the differences between the means of the channels."""
    red, green, blue = output.mean((2, 3)).unbind(1)
    fourth = [d.square().square() for d in (red - green, red - blue)]
    return torch.sqrt(sum(fourth, (green - blue) ** 4) + _TINY)


def curve_smoothness(curves: Tensor) -> Tensor:
    """Mean squared differences of neighbours, over both axes, twice their sum over channels."""
    rows, columns = (curves.diff(dim=axis).square().mean((2, 3)).sum(1) for axis in (2, 3))
    return 2 * (rows + columns)


TERMS: dict[str, Term] = {
    "spatial": lambda sample: spatial_consistency(sample.output, sample.low),
    "exposure": lambda sample: exposure(sample.output),
    "colour-balance": lambda sample: colour_balance(sample.output),
    "curve-smoothness": lambda sample: curve_smoothness(sample.details["curves"]),
}
