"""LLNet: Lore et al., Pattern Recognition 61, 2017, in its form for colour.

A fully connected network on patches of 17 x 17 pixels at every third row and column, whose outputs
are averaged where they overlap. The published code resizes the image to a size that the patches
cover, and stretches the result to full contrast; here the last row and column are repeated as far
as the last patch needs, and nothing is stretched.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.network import Network, Prediction

SIDE, STRIDE = 17, 3
VALUES = 3 * SIDE**2


class LLNet(Network):
    """17,918,467 parameters in the published configuration; the output is in (0, 1).

    Args:
        hidden: values per patch behind each hidden layer.
    """

    places: Tensor

    def __init__(self, *, hidden: Sequence[int]) -> None:
        super().__init__()
        # the layers of all patches at once are convolutions, the first one of a patch's size
        self.first = nn.Conv2d(3, hidden[0], SIDE, stride=STRIDE)
        self.hidden = nn.ModuleList(nn.Conv2d(*pair, 1) for pair in itertools.pairwise(hidden))
        self.output = nn.Conv2d(hidden[-1], VALUES, 1)
        for conv in (self.first, *self.hidden, self.output):
            assert isinstance(conv, nn.Conv2d) and conv.bias is not None
            inputs = conv.weight[0].numel()
            bound = 4 * (6 / (inputs + conv.out_channels)) ** 0.5
            nn.init.uniform_(conv.weight, -bound, bound)
            nn.init.zeros_(conv.bias)
        # one value of a patch to its pixel
        places = torch.eye(SIDE**2).reshape(-1, 1, SIDE, SIDE).repeat(3, 1, 1, 1)
        self.register_buffer("places", places, persistent=False)

    def patches(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(N, 3, H, W), sides 17 and any multiple of 3 more -> (N, 867, rows, columns).

        And the values behind each hidden layer.
        """
        hidden = [self.first(image.to(self.output.weight.dtype)).sigmoid()]
        for layer in self.hidden:
            hidden.append(layer(hidden[-1]).sigmoid())
        return self.output(hidden[-1]).sigmoid().float(), hidden

    def forward(self, image: Tensor) -> Tensor:
        return self._averaged(self.patches(_covered(image))[0], image)

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        patches, hidden = self.patches(_covered(low))
        layers = dict(self.named_parameters())
        weights = [layers[f"hidden.{number}.weight"] for number in range(len(self.hidden))]
        squares = [weight.float().square().sum() for weight in (self.first.weight, *weights)]
        encoder = hidden[: len(hidden) // 2 + 1]
        details = {
            "patches": patches,
            "patches_high": F.unfold(_covered(high), SIDE, stride=STRIDE).view_as(patches),
            "squared_weights": torch.stack(squares).sum().expand(len(low)),
            "activity": torch.cat([values.float().mean((2, 3)) for values in encoder], dim=1),
        }
        return Prediction(self._averaged(patches, low), details)

    def _averaged(self, patches: Tensor, image: Tensor) -> Tensor:
        """Overlapping patches -> (N, 3, H, W), of the size of the image."""
        height, width = image.shape[2:]
        total = F.conv_transpose2d(patches, self.places.float(), stride=STRIDE, groups=3)
        ones = torch.ones_like(patches[:1, :1])
        square = ones.new_ones(1, 1, SIDE, SIDE)
        mean = total / F.conv_transpose2d(ones, square, stride=STRIDE)
        return mean[:, :, :height, :width]


def _covered(image: Tensor) -> Tensor:
    """The last row and column repeated as far as the last patch needs."""
    bottom, right = ((SIDE - side) % STRIDE for side in image.shape[2:])
    return F.pad(image, (0, right, 0, bottom), mode="replicate")
