"""The adversarial term: Mao et al., Least Squares Generative Adversarial Networks, ICCV 2017."""

from __future__ import annotations

from torch import Tensor

from mirnet.objectives.adversarial.discriminator import REAL
from mirnet.objectives.total import Sample, Term


def adversarial(sample: Sample) -> Tensor:
    """Mean squared distance of the scores of the output's patches from a real one's -> (N,)."""
    assert sample.realness is not None, "the run has a discriminator"
    return (sample.realness(sample.output) - REAL).square().mean((1, 2, 3))


TERMS: dict[str, Term] = {"adversarial": adversarial}
