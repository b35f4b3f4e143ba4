"""SCI: Ma et al., CVPR 2022. Modules are named as in the published checkpoints.

The calibration serves training alone: a model is stored and used without it.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor, nn

from mirnet.models.network import Network, Prediction

DARKEST = 1e-4  # of the illumination
STAGES = 3
_CALIBRATION_WIDTH, _CALIBRATION_PASSES = 16, 3


def _start(network: nn.Module) -> None:
    """The random weights that the published training starts from."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.02)
            assert module.bias is not None
            nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, mean=1, std=0.02)


def _normed(in_channels: int, out_channels: int) -> list[nn.Module]:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    return [conv, nn.BatchNorm2d(out_channels), nn.ReLU()]


class Illumination(nn.Module):
    """(N, 3, H, W) -> (N, 3, H, W) in (0, 1), to be added to the image."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.conv = nn.Sequential(*_normed(width, width))
        self.out_conv = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.Sigmoid())
        _start(self)

    def forward(self, image: Tensor) -> Tensor:
        x = self.in_conv(image)
        out: Tensor = self.out_conv(x + self.conv(x))
        return out


class Calibration(nn.Module):
    """A stage's result (N, 3, H, W) -> what the next stage adds to the image, (N, 3, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(*_normed(3, width))
        self.convs = nn.Sequential(*_normed(width, width), *_normed(width, width))
        self.out_conv = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1), nn.Sigmoid())
        _start(self)

    def forward(self, result: Tensor) -> Tensor:
        x = self.in_conv(result)
        for _ in range(_CALIBRATION_PASSES):
            x = x + self.convs(x)
        out: Tensor = result - self.out_conv(x)
        return out


class SCI(Network):
    """The image over its illumination; 258 parameters in the paper's configuration.

    Training adds 5,619 for the calibration.
    """

    calibrate: Calibration | None

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.enhance = Illumination(width)
        self.calibrate = None

    def add_training_parts(self, phases: Collection[str]) -> None:
        if phases:
            self.calibrate = Calibration(_CALIBRATION_WIDTH)

    def illumination(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W) in [1e-4, 1], float32."""
        added: Tensor = self.enhance(image.to(next(self.parameters()).dtype))
        return (added + image).clamp(DARKEST, 1.0)  # ONNX wants both of one type

    def forward(self, image: Tensor) -> Tensor:
        return torch.clamp(image / self.illumination(image), 0.0, 1.0)

    def predict(self, low: Tensor, high: Tensor) -> Prediction:  # noqa: ARG002
        """Stages of one network, each on the image and the calibrated result of the one before.

        The first is ``forward``. Without the calibration it is the only one, as in the published
        fine-tuning.
        """
        inputs, illuminations, results = [low], [], []
        while True:
            illuminations.append(self.illumination(inputs[-1]))
            results.append(torch.clamp(low / illuminations[-1], 0.0, 1.0))
            if self.calibrate is None or len(results) == STAGES:
                break
            inputs.append(low + self.calibrate(results[-1]))
        details = {
            "illuminations": torch.stack(illuminations, dim=1),
            "stage_inputs": torch.stack(inputs, dim=1),
        }
        return Prediction(results[0], details)
