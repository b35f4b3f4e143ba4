"""LLFlow: Wang et al., AAAI 2022. Modules are named as in the published checkpoints."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.conditional_flow import Flow, InvertibleConv
from mirnet.models.layers.dense import Dense
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.llflow.encoder import DARKEST, Encoder, colour_map, equalised
from mirnet.models.network import Network, Prediction

SQUEEZE = 8


class LLFlow(Network):
    """A normalizing flow, conditioned on the dark image; the output is that of the mean.

    4,967,635 parameters in the paper's small configuration; H and W multiples of 8. The published
    sampling is deterministic, too.
    """

    num_statistics = 1

    def __init__(
        self, *, width: int, growth: int, blocks: int, kept: int, steps: int, hidden: int
    ) -> None:
        super().__init__()
        self.RRDB = Encoder(width, growth=growth, blocks=blocks, kept=kept)
        self.flowUpsamplerNet = Flow(steps=steps, condition=(1 + kept) * width, hidden=hidden)

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        return self.enhanced(prepared(image, statistics))

    def enhanced(self, given: Tensor) -> Tensor:
        """(N, 6, H, W) as :func:`prepared` gives it -> (N, 3, H, W)."""
        conditions, mean = self.RRDB(given)
        latent = F.pixel_unshuffle(mean, SQUEEZE)
        out: Tensor = self.flowUpsamplerNet.reverse(latent, conditions)
        return out

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        conditions, mean = self.RRDB(prepared(low, FULL_IMAGE))
        latent = F.pixel_unshuffle(mean, SQUEEZE)
        return Prediction(
            functools.partial(self.flowUpsamplerNet.reverse, latent, conditions),
            self._bits(high, conditions, latent),
        )

    def likelihoods(self, given: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Negative log-likelihoods of each target, in bits per pixel.

        Args:
            given: (N, 6, H, W) as :func:`prepared` gives it.
            target: (N, 3, H, W) in [0, 1].

        Returns:
            ``bits`` (N,), and ``bits_true_mean`` (N,), for which the mean of the latent variables
            is the colour map of the target, in place of that of the encoder.
        """
        conditions, mean = self.RRDB(given)
        return self._bits(target, conditions, F.pixel_unshuffle(mean, SQUEEZE))

    def _bits(self, target: Tensor, conditions: list[Tensor], latent: Tensor) -> dict[str, Tensor]:
        z, logdet = self.flowUpsamplerNet(target, conditions)
        true = F.pixel_unshuffle(colour_map(target), SQUEEZE)
        found = {}
        for name, mean in (("bits", latent), ("bits_true_mean", true)):
            normal = -((z - mean).square() + math.log(2 * math.pi)).sum((1, 2, 3)) / 2
            pixels = target.shape[2] * target.shape[3]
            found[name] = -(logdet + normal) / (math.log(2) * pixels)
        return found

    def repeated_blocks(self) -> Sequence[nn.Module]:
        return [module for module in self.modules() if isinstance(module, Dense)]

    def folded(self) -> Network:
        one = copy.deepcopy(self)
        for module in one.modules():
            if isinstance(module, InvertibleConv):
                module.fold()
        return one


def prepared(image: Tensor, statistics: GlobalPooling) -> Tensor:
    """Logarithm of the image and equalised image: (N, 6, H, W)."""
    return torch.cat([(image + DARKEST).log(), equalised(image, statistics)], dim=1)
