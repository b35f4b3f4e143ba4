"""SCI: Ma et al., CVPR 2022. Modules are named as in the published checkpoints.

The part that enhances. The self-calibrated part serves the published training alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirnet.models.network import Network, Prediction

DARKEST = 1e-4  # of the illumination


class Illumination(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W) in (0, 1), to be added to the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.conv = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()
        )
        self.out_conv = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.Sigmoid())
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.02)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.weight, mean=1, std=0.02)

    def forward(self, image: Tensor) -> Tensor:
        x = self.in_conv(image)
        out: Tensor = self.out_conv(x + self.conv(x))
        return out


class SCI(Network):
    """The image over its illumination; 258 parameters in the paper's configuration."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.enhance = Illumination(width)

    def illumination(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W) in [1e-4, 1], float32."""
        added: Tensor = self.enhance(image.to(next(self.parameters()).dtype))
        return (added + image).clamp(DARKEST, 1.0)  # ONNX wants both of one type

    def forward(self, image: Tensor) -> Tensor:
        return torch.clamp(image / self.illumination(image), 0.0, 1.0)

    def predict(self, low: Tensor, high: Tensor) -> Prediction:  # noqa: ARG002
        """One stage: that of the published fine-tuning."""
        illumination = self.illumination(low)
        details = {"illuminations": illumination[:, None], "stage_inputs": low[:, None]}
        return Prediction(torch.clamp(low / illumination, 0.0, 1.0), details)
