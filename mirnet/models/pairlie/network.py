"""PairLIE: Fu et al., CVPR 2023. Modules are named as in the published checkpoints."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from mirnet.models.network import Network, Prediction

LAYERS = 5


class Plain(nn.Module):
    """Five 3x3 convolutions behind reflected borders: (N, 3, H, W) -> (N, C, H, W) in (0, 1).

    Args:
        name: of the layers in the published checkpoints.
    """

    def __init__(self, name: str, out_channels: int, *, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = (3, *[width] * (LAYERS - 1), out_channels)
        for before, after in itertools.pairwise(channels):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3), nn.ReLU()]
        layers[-1] = nn.Sigmoid()
        self.name = name
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.get_submodule(self.name)(x)
        return out


class PairLIE(Network):
    """341,767 parameters in the paper's configuration; sides of at least 2.

    Args:
        exponent: of the illumination; 0.2 in the paper, 0.14 in its scores on LoL.
    """

    def __init__(self, *, width: int, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent
        self.L_net = Plain("L_net", 1, width=width)
        self.R_net = Plain("R_net", 3, width=width)
        self.N_net = Plain("N_net", 3, width=width)

    def decomposed(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Illumination (N, 1, H, W), reflectance and image without noise, (N, 3, H, W)."""
        clean = self.N_net(image.to(next(self.parameters()).dtype))
        return self.L_net(clean), self.R_net(clean), clean

    def forward(self, image: Tensor) -> Tensor:
        illumination, reflectance, _ = self.decomposed(image)
        return self._lit(illumination, reflectance)

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        """The reference takes the place of the second exposure of the published training."""
        illumination, reflectance, projected = self.decomposed(low)
        details = {
            "illumination": illumination,
            "reflectance": reflectance,
            "projected": projected,
            "reflectance_high": self.R_net(self.N_net(high)),
        }
        return Prediction(self._lit(illumination, reflectance), details)

    def _lit(self, illumination: Tensor, reflectance: Tensor) -> Tensor:
        out: Tensor = illumination.float() ** self.exponent * reflectance
        return out
