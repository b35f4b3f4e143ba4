"""The HVI colour space: Yan et al., HVI: A New Color Space for Low-light Image Enhancement, CVPR
2025. Hue and saturation as a point in a plane that shrinks towards black, and the maximum of RGB.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

EPSILON = 1e-8
# below, gradients of the root, the angle and the power grow without bound
_STEEP_SQUARE = 1e-6  # of the distance from grey
_STEEP_VALUE = 1e-3


class HVI(nn.Module):
    """Both directions; ``density_k`` is learned, but only through the first."""

    def __init__(self) -> None:
        super().__init__()
        self.density_k = nn.Parameter(torch.full((1,), 0.2))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, H, W) RGB in [0, 1] -> (N, 3, H, W): two coordinates in [-1, 1], one in [0, 1]."""
        red, green, blue = image.chunk(3, dim=1)
        value = image.amax(1, keepdim=True)
        chroma = value - image.amin(1, keepdim=True)
        spread = chroma + EPSILON
        # where two are largest, red wins over green over blue
        sixths = 4 + (red - green) / spread
        sixths = torch.where(green == value, 2 + (blue - red) / spread, sixths)
        sixths = torch.where(red == value, (green - blue) / spread % 6, sixths)
        angle = torch.where(chroma == 0, 0.0, sixths) * (2 * math.pi / 6)
        radius = _density(value, self.density_k.float()) * (chroma / (value + EPSILON))
        return torch.cat([radius * angle.cos(), radius * angle.sin(), value], dim=1)

    def inverse(self, hvi: Tensor, *, saturation: float) -> Tensor:
        """(N, 3, H, W) -> RGB in [0, 1], the saturation multiplied; out of range is clamped."""
        plane, value = hvi[:, :2].clamp(-1, 1), hvi[:, 2:].clamp(0, 1)
        density = _density(value, self.density_k.detach().float())
        x, y = (plane / (density + EPSILON)).clamp(-1, 1).chunk(2, dim=1)
        square = x.square() + y.square() + EPSILON
        # the value everywhere, the gradient where it is bounded
        grey = square < _STEEP_SQUARE
        hue = torch.atan2(y + EPSILON, x + EPSILON) * (6 / (2 * math.pi))
        hue = torch.where(grey, hue.detach(), hue)
        root = square.sqrt()
        strength = (torch.where(grey, root.detach(), root) * saturation).clamp(0, 1)
        channels = []
        for sector in (5.0, 3.0, 1.0):
            # 1 in the two sectors of the channel, 0 in those opposite, linear between
            place = (hue + sector) % 6
            absent = torch.minimum(place, 4 - place).clamp(0, 1)
            channels.append(value * (1 - strength * absent))
        return torch.cat(channels, dim=1)


def _density(value: Tensor, exponent: Tensor) -> Tensor:
    """Radius of the plane at a maximum of RGB."""
    base = (value * (math.pi / 2)).sin() + EPSILON
    return torch.where(base < _STEEP_VALUE, base.detach(), base) ** exponent
