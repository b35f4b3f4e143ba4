"""RetinexNet: Wei et al., Deep Retinex Decomposition for Low-Light Enhancement, BMVC 2018.

Modules are named as in the published checkpoints. The paper's denoising of the reflectance is not
part of the published network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.network import Network, Prediction

ACTIVATED = 5


class Decomposition(nn.Module):
    """(N, 3, H, W) -> reflectance (N, 3, H, W) and illumination (N, 1, H, W), in (0, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.shallow_feature_extraction = nn.Conv2d(4, width, 9, padding=4)
        for number in range(ACTIVATED):
            self.add_module(f"activated_layer_{number}", nn.Conv2d(width, width, 3, padding=1))
        self.recon_layer = nn.Conv2d(width, 4, 3, padding=1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        brightest = image.amax(1, keepdim=True)
        x = self.shallow_feature_extraction(torch.cat([brightest, image], dim=1))
        for number in range(ACTIVATED):
            x = self.get_submodule(f"activated_layer_{number}")(x).relu()
        both = self.recon_layer(x).sigmoid()
        return both[:, :3], both[:, 3:]


class Relight(nn.Module):
    """Reflectance and illumination -> another illumination (N, 1, H, W), of any value."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(4, width, 3, padding=1)
        for number in (1, 2, 3):  # padded by hand
            self.add_module(f"conv2d_{number}", nn.Conv2d(width, width, 3, stride=2))
        for number in (4, 5, 6):
            self.add_module(f"conv2d_{number}", nn.Conv2d(width, width, 3, padding=1))
        self.conv2d_7 = nn.Conv2d(3 * width, width, 1)
        self.conv2d_8 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, reflectance: Tensor, illumination: Tensor) -> Tensor:
        maps = [self.conv2d(torch.cat([reflectance, illumination], dim=1))]
        for number in (1, 2, 3):
            rows, columns = (side % 2 for side in maps[-1].shape[2:])
            padded = F.pad(maps[-1], (columns, 1, rows, 1))  # as TensorFlow's SAME
            maps.append(self.get_submodule(f"conv2d_{number}")(padded).relu())
        x = maps.pop()
        size = maps[0].shape[2:]
        gathered = []
        for number in (4, 5, 6):
            skip = maps.pop()
            larger = F.interpolate(x, skip.shape[2:], mode="nearest")
            x = self.get_submodule(f"conv2d_{number}")(larger).relu() + skip
            gathered.append(F.interpolate(x, size, mode="nearest"))
        out: Tensor = self.conv2d_8(self.conv2d_7(torch.cat(gathered, dim=1)))
        return out


class RetinexNet(Network):
    """444,613 parameters in the paper's configuration; the output may leave [0, 1]."""

    def __init__(self, *, width: int) -> None:
        super().__init__()
        self.DecomNet = Decomposition(width)
        self.RelightNet = Relight(width)
        for conv in self.modules():
            if isinstance(conv, nn.Conv2d):
                nn.init.xavier_uniform_(conv.weight)
                assert conv.bias is not None
                nn.init.zeros_(conv.bias)

    def forward(self, image: Tensor) -> Tensor:
        reflectance, illumination = self._decomposed(image)
        relit = self.RelightNet(reflectance, illumination)
        out: Tensor = reflectance.float() * relit.float()
        return out

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        """Serves both phases of the published training: relighting does not move its input."""
        reflectance, illumination = self._decomposed(low)
        reflectance_high, illumination_high = self._decomposed(high)
        relit = self.RelightNet(reflectance.detach(), illumination.detach())
        details = {
            "reflectance": reflectance,
            "illumination": illumination,
            "reflectance_high": reflectance_high,
            "illumination_high": illumination_high,
            "relit": relit,
        }
        return Prediction(reflectance.float() * relit.float(), details)

    def _decomposed(self, image: Tensor) -> tuple[Tensor, Tensor]:
        reflectance, illumination = self.DecomNet(image.to(next(self.parameters()).dtype))
        return reflectance, illumination
