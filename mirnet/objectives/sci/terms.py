"""The terms of SCI: Ma et al., Toward Fast, Flexible, and Robust Low-Light Image Enhancement, CVPR
2022, section 3.3. Each sums over the stages of its training -> (N,).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirnet.objectives.total import Sample, Term

# rows: RGB to the three channels that weigh differences; BT.601 in the range of video
_CHANNELS = ((0.257, -0.148, 0.439), (0.564, -0.291, -0.368), (0.098, 0.439, -0.071))
_OFFSET = (16 / 255, 128 / 255, 128 / 255)
_VARIANCE = 200.0  # twice the square of sigma 10
_OFFSETS = (
    *((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2)),
    *((2, 1), (2, -1), (1, 2), (1, -2), (2, 2), (2, -2)),
)


def fidelity(illumination: Tensor, image: Tensor) -> Tensor:
    """Mean squared difference, (N, 3, H, W) both -> (N,)."""
    return (illumination - image).square().mean((1, 2, 3))


def guide(image: Tensor) -> Tensor:
    """The image whose differences weigh those of the illumination.

    As in the published training: the matrix for colours is applied to three neighbouring values in
    memory, not to the three channels of a pixel. With sigma 10 the weights are near 1 either way.
    """
    rows = image.contiguous().reshape(-1, 3)
    changed = rows @ image.new_tensor(_CHANNELS) + image.new_tensor(_OFFSET)
    return changed.reshape(image.shape)


def smoothness(illumination: Tensor, image: Tensor) -> Tensor:
    """Weighted absolute differences to the 24 neighbours within two pixels -> (N,)."""
    weighing = guide(image)
    total = illumination.new_zeros(len(illumination))
    for rows, columns in _OFFSETS:
        weight = torch.exp(-_shifted(weighing, rows, columns).square().sum(1) / _VARIANCE)
        step = _shifted(illumination, rows, columns).abs().sum(1)
        total = total + 2 * (weight * step).mean((1, 2))  # each pair counts in both directions
    return total


def _shifted(maps: Tensor, rows: int, columns: int) -> Tensor:
    """Differences between pixels that are this far apart."""
    height, width = maps.shape[2:]
    left = max(-columns, 0)
    right = width - max(columns, 0)
    here = maps[:, :, : height - rows, left:right]
    return maps[:, :, rows:, left + columns : right + columns] - here


def _over_stages(sample: Sample, term: str) -> Tensor:
    """Sum over the stages of (N, stages, 3, H, W)."""
    function = {"fidelity": fidelity, "smoothness": smoothness}[term]
    pairs = zip(
        sample.details["illuminations"].unbind(1),
        sample.details["stage_inputs"].unbind(1),
        strict=True,
    )
    return torch.stack([function(illumination, image) for illumination, image in pairs]).sum(0)


TERMS: dict[str, Term] = {
    "sci-fidelity": lambda sample: _over_stages(sample, "fidelity"),
    "sci-smoothness": lambda sample: _over_stages(sample, "smoothness"),
}
