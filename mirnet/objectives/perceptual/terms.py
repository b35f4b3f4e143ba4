"""The perceptual term: Johnson et al., Perceptual Losses for Real-Time Style Transfer and
Super-Resolution, ECCV 2016, with the layers that HVI-CIDNet compares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirnet.objectives.total import Sample, Term


def perceptual(sample: Sample) -> Tensor:
    """Mean squared difference at the end of each block, summed over four blocks -> (N,).

    The published training of HVI-CIDNet halves the contrast of its images first, as if they were in
    [-1, 1]; these are normalised as the VGG's own were.
    """
    assert sample.features is not None, "the params ask for weights"
    with torch.no_grad():
        wanted = sample.features(sample.high)
    pairs = zip(sample.features(sample.output), wanted, strict=True)
    return torch.stack([(one - other).square().mean((1, 2, 3)) for one, other in pairs]).sum(0)


TERMS: dict[str, Term] = {"perceptual": perceptual}
