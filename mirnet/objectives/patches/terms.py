"""The terms of LLNet: Lore et al., Pattern Recognition 61, 2017, in the form of the published
training, of which every patch of 17 x 17 pixels in an image is a sample. Each -> (N,).
"""

from __future__ import annotations

from torch import Tensor

from mirnet.objectives.total import Sample, Term

WANTED_ACTIVITY = 0.2
_DECAY = 1e-5
_LEAST = 1e-6


def squared_error(patches: Tensor, wanted: Tensor) -> Tensor:
    """Sum of the squared errors of a patch, (N, values, rows, columns) both; mean over patches."""
    return (patches - wanted).square().sum(1).mean((1, 2))


def sparsity(activity: Tensor) -> Tensor:
    """Divergence of mean activities, (N, units), from 0.2, summed over the units.

    The published pretraining takes the mean activity over a batch of patches; here it is that over
    the patches of an image.
    """
    found = activity.clamp(_LEAST, 1 - _LEAST)
    on = WANTED_ACTIVITY * (WANTED_ACTIVITY / found).log()
    off = (1 - WANTED_ACTIVITY) * ((1 - WANTED_ACTIVITY) / (1 - found)).log()
    return (on + off).sum(1)


def _decay(sample: Sample) -> Tensor:
    """Not that of the optimiser: it leaves out the output layer, and the biases."""
    return _DECAY / 2 * sample.details["squared_weights"]


TERMS: dict[str, Term] = {
    "llnet-patches": lambda sample: squared_error(
        sample.details["patches"], sample.details["patches_high"]
    ),
    "llnet-decay": _decay,
    "llnet-sparsity": lambda sample: sparsity(sample.details["activity"]),
}
