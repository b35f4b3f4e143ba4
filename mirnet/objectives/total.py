"""The weighted sum of loss terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mirnet.objectives.registry import by_name


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A batch and what the network made of it, float32.

    Attributes:
        output: of the network, (N, 3, H, W), unclamped. No clamp before the loss: a clamped output
            has no gradient where its error is largest.
        low, high: input and reference, (N, 3, H, W) in [0, 1].
        details: by-products of the network by name, (N, ...) each.
        eps: of the Charbonnier terms.
        features: maps of an image (N, 3, H, W) by a VGG, (N, C, H', W') each, for the perceptual
            term.
        realness: scores of an image's patches by a discriminator, (N, 1, H', W'), for the
            adversarial term; their gradient reaches the image only.
    """

    output: Tensor
    low: Tensor
    high: Tensor
    details: Mapping[str, Tensor] = field(default_factory=dict)
    eps: float = 1e-3
    features: Callable[[Tensor], Sequence[Tensor]] | None = None
    realness: Callable[[Tensor], Tensor] | None = None


# One value per image lets a batch be split unevenly over workers and still average exactly.
Term = Callable[[Sample], Tensor]


def combined(sample: Sample, weights: Mapping[str, float]) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of terms, (N,), and each of them without its weight, (N,)."""
    terms = {name: by_name(name).load()(sample) for name in weights}
    total = torch.stack([weight * terms[name] for name, weight in weights.items()]).sum(0)
    return total, {name: term.detach() for name, term in terms.items()}
