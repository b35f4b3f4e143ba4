"""Zero-DCE: Guo et al., CVPR 2020. Modules are named as in the published checkpoints."""

from __future__ import annotations

from torch import Tensor, nn

from mirnet.models.layers.curves import ITERATIONS, brightened, estimated_curves
from mirnet.models.network import Network, Prediction


class ZeroDCE(Network):
    """Eight curves per pixel and channel; 79,416 parameters in the paper's configuration."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        channels = {1: (3, width), 5: (2 * width, width), 6: (2 * width, width)}
        channels[7] = 2 * width, 3 * ITERATIONS
        for number in range(1, 8):
            conv = nn.Conv2d(*channels.get(number, (width, width)), 3, padding=1)
            nn.init.normal_(conv.weight, std=0.02)
            self.add_module(f"e_conv{number}", conv)

    def curves(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 24, H, W) in [-1, 1], a map of three channels per iteration."""

        def run(number: int, x: Tensor) -> Tensor:
            out: Tensor = self.get_submodule(f"e_conv{number}")(x)
            return out

        return estimated_curves(run, image.to(next(self.parameters()).dtype))

    def forward(self, image: Tensor) -> Tensor:
        return self._applied(image, self.curves(image))

    def predict(self, low: Tensor, high: Tensor) -> Prediction:  # noqa: ARG002
        curves = self.curves(low)
        return Prediction(self._applied(low, curves), {"curves": curves})

    def _applied(self, image: Tensor, curves: Tensor) -> Tensor:
        return brightened(image, curves.chunk(ITERATIONS, dim=1))
