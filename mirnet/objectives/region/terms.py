"""The region loss of MBLLEN: Lv et al., BMVC 2018, section 3.2.

As the paper intends: in the published training the mask of the dark region is empty.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirnet.objectives.total import Term

_GREY = (0.39, 0.5, 0.11)
_DARK_SHARE, _DARK_WEIGHT = 0.4, 4.0


def region(output: Tensor, target: Tensor) -> Tensor:
    """Mean absolute difference, four times on the darkest 40 % of the target's pixels -> (N,)."""
    grey = (target * target.new_tensor(_GREY)[:, None, None]).sum(1)
    ordered = grey.flatten(1).sort(dim=1).values
    last = max(int(ordered.shape[1] * _DARK_SHARE - 1), 0)
    dark = (grey <= ordered[:, last, None, None])[:, None]
    weight = torch.where(dark, _DARK_WEIGHT, 1.0)
    return (weight * (output - target).abs()).mean((1, 2, 3))


TERMS: dict[str, Term] = {"region": lambda sample: region(sample.output, sample.high)}
