"""A discriminator of patches: Isola et al., Image-to-Image Translation with Conditional Adversarial
Networks, CVPR 2017, section 3.2.2, with three levels and without normalisation.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

REAL, MADE = 1.0, 0.0
_WIDTHS = (3, 32, 64, 128)


class PatchDiscriminator(nn.Module):
    """(N, 3, H, W) -> (N, 1, H/8, W/8): near 1 where a patch of 38x38 pixels looks real.

    166,753 parameters. There is no batch normalisation, so that parts of a batch and workers give
    what the whole batch does.
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(_WIDTHS):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(_WIDTHS[-1], 1, 3, padding=1))

    def forward(self, image: Tensor) -> Tensor:
        out: Tensor = self.layers(image)
        return out

    def as_it_is(self, image: Tensor) -> Tensor:
        """The scores of ``forward``, whose gradient reaches the image only."""
        fixed = {name: value.detach() for name, value in self.named_parameters()}
        out: Tensor = torch.func.functional_call(self, fixed, (image,))
        return out

    def loss(self, output: Tensor, high: Tensor) -> Tensor:
        """Mean squared distance of the scores of references from 1 and of outputs from 0 -> (N,).

        Its gradient reaches the discriminator only.
        """
        real = (self(high) - REAL).square().mean((1, 2, 3))
        made = (self(output.detach()) - MADE).square().mean((1, 2, 3))
        out: Tensor = (real + made) / 2
        return out
