"""The objective of LLFlow: Wang et al., Low-Light Image Enhancement with Normalizing Flow, AAAI
2022, in the form of the published training.
"""

from __future__ import annotations

from torch import Tensor

from mirnet.objectives.total import Sample, Term

TRUE_SHARE = 0.2


def likelihood(sample: Sample) -> Tensor:
    """Negative log-likelihood of the reference, in bits per pixel -> (N,).

    The published training draws per batch whether the mean of the latent variables is the encoder's
    (0.8) or the colour map of the reference (0.2). Both are computed and weighted by that here: its
    expectation, which needs no random numbers.
    """
    own, true = sample.details["bits"], sample.details["bits_true_mean"]
    return (1 - TRUE_SHARE) * own + TRUE_SHARE * true


TERMS: dict[str, Term] = {"flow-likelihood": likelihood}
