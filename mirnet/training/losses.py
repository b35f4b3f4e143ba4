"""Losses on the raw output of the network, (N, 3, H, W) against the same -> one value a sample.

One value a sample lets a batch be split unevenly over workers and still average exactly.
No clamp before the loss: a clamped output has no gradient where it is most wrong.
"""

from __future__ import annotations

import torch
from torch import Tensor


def charbonnier(output: Tensor, target: Tensor, *, eps: float) -> Tensor:
    """Mean of ``sqrt(d^2 + eps^2)`` (Zamir et al., ECCV 2020, equation 9) -> (N,)."""
    return torch.sqrt((output - target).square() + eps * eps).mean(dim=(1, 2, 3))
