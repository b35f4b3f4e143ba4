"""A conditional flow: Lugmayr et al., SRFlow, ECCV 2020, of layers of Glow (Kingma and Dhariwal,
NeurIPS 2018). Modules are named as in the published checkpoints of SRFlow and LLFlow.

``forward`` of each part maps towards the latent variables and gives the logarithm of its
determinant per image, ``reverse`` maps back.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 3
PLAIN_STEPS = 2  # per level, without coupling
LOGS_FACTOR = 3
LEAST_SCALE = 1e-4


class ActNorm(nn.Module):
    """A shift and a positive factor per channel.

    The published training sets them from its first batch; here they start neutral.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.bias) * self.logs.exp()

    def reverse(self, x: Tensor) -> Tensor:
        return x * (-self.logs).exp() - self.bias

    def logdet(self, x: Tensor) -> Tensor:
        out: Tensor = self.logs.sum() * _pixels(x)
        return out


class InvertibleConv(nn.Module):
    """A 1x1 convolution by an invertible matrix, inverted in double precision."""

    inverse: Tensor | None

    def __init__(self, channels: int) -> None:
        super().__init__()
        matrix = torch.empty(channels, channels)
        self.weight = nn.Parameter(nn.init.orthogonal_(matrix))
        self.register_buffer("inverse", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None])

    def reverse(self, x: Tensor) -> Tensor:
        inverse = self._inverted() if self.inverse is None else self.inverse
        return F.conv2d(x, inverse[:, :, None, None])

    def logdet(self, x: Tensor) -> Tensor:
        out: Tensor = torch.linalg.slogdet(self.weight.double())[1].to(x.dtype) * _pixels(x)
        return out

    @torch.no_grad()
    def fold(self) -> None:
        """Keep the inverse of the weights as they are."""
        self.inverse = self._inverted().detach()

    def _inverted(self) -> Tensor:
        inverse: Tensor = torch.linalg.inv(self.weight.double())
        return inverse.to(self.weight.dtype)


class NormedConv(nn.Conv2d):
    """A convolution without bias, then an :class:`ActNorm`."""

    def __init__(self, in_channels: int, out_channels: int, size: int) -> None:
        super().__init__(in_channels, out_channels, size, padding=size // 2, bias=False)
        nn.init.normal_(self.weight, std=0.05)
        self.actnorm = ActNorm(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.actnorm(super().forward(x))
        return out


class ScaledConv(nn.Conv2d):
    """A convolution that starts at zero, and a positive factor per channel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        nn.init.zeros_(self.weight)
        assert self.bias is not None
        nn.init.zeros_(self.bias)
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (LOGS_FACTOR * self.logs).exp()


def _network(in_channels: int, out_channels: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        NormedConv(in_channels, hidden, 3),
        nn.ReLU(),
        NormedConv(hidden, hidden, 1),
        nn.ReLU(),
        ScaledConv(hidden, out_channels),
    )


class Coupling(nn.Module):
    """Shifts and scales all channels by the condition, then one half by the other, too."""

    def __init__(self, channels: int, *, condition: int, hidden: int) -> None:
        super().__init__()
        self.num_first = channels // 2
        rest = channels - self.num_first
        self.fAffine = _network(self.num_first + condition, 2 * rest, hidden)
        self.fFeatures = _network(condition, 2 * channels, hidden)

    def forward(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        shift, scale = _split(self.fFeatures(condition))
        z = (z + shift) * scale
        logdet = _log_sum(scale)
        first, rest = z[:, : self.num_first], z[:, self.num_first :]
        shift, scale = _split(self.fAffine(torch.cat([first, condition], dim=1)))
        rest = (rest + shift) * scale
        return torch.cat([first, rest], dim=1), logdet + _log_sum(scale)

    def reverse(self, z: Tensor, condition: Tensor) -> Tensor:
        first, rest = z[:, : self.num_first], z[:, self.num_first :]
        shift, scale = _split(self.fAffine(torch.cat([first, condition], dim=1)))
        z = torch.cat([first, rest / scale - shift], dim=1)
        shift, scale = _split(self.fFeatures(condition))
        return z / scale - shift


class Step(nn.Module):
    """A step of the flow, with or without coupling."""

    def __init__(self, channels: int, *, condition: int | None, hidden: int) -> None:
        super().__init__()
        self.actnorm = ActNorm(channels)
        self.invconv = InvertibleConv(channels)
        coupled = condition is not None
        self.affine = (
            Coupling(channels, condition=condition or 0, hidden=hidden) if coupled else None
        )

    def forward(self, z: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        logdet = self.actnorm.logdet(z) + self.invconv.logdet(z)
        z = self.invconv(self.actnorm(z))
        if self.affine is None:
            return z, logdet
        z, added = self.affine(z, condition)
        return z, logdet + added

    def reverse(self, z: Tensor, condition: Tensor) -> Tensor:
        if self.affine is not None:
            z = self.affine.reverse(z, condition)
        return self.actnorm.reverse(self.invconv.reverse(z))


class Flow(nn.Module):
    """Three levels, each after a squeeze of 2 x 2 pixels into channels."""

    def __init__(self, *, steps: int, condition: int, hidden: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for level in range(LEVELS):
            channels = 3 * 4 ** (level + 1)
            layers.append(nn.Identity())  # the squeeze has a number, but no parameters
            for number in range(PLAIN_STEPS + steps):
                given = condition if number >= PLAIN_STEPS else None
                layers.append(Step(channels, condition=given, hidden=hidden))
        self.layers = nn.ModuleList(layers)

    def forward(self, image: Tensor, conditions: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) -> latent variables (N, 192, H/8, W/8) and log-determinants (N,)."""
        z, logdet = image, image.new_zeros(image.shape[0])
        for steps, condition in zip(self._steps(), conditions, strict=True):
            z = F.pixel_unshuffle(z, 2)
            for step in steps:
                z, added = step(z, condition)
                logdet = logdet + added
        return z, logdet

    def reverse(self, z: Tensor, conditions: Sequence[Tensor]) -> Tensor:
        for steps, condition in zip(
            reversed(list(self._steps())), reversed(conditions), strict=True
        ):
            for step in reversed(steps):
                z = step.reverse(z, condition)
            z = F.pixel_shuffle(z, 2)
        return z

    def _steps(self) -> Iterator[list[Step]]:
        count = len(self.layers) // LEVELS
        for start in range(0, len(self.layers), count):
            level = self.layers[start : start + count]
            yield [step for step in level if isinstance(step, Step)]


def _split(both: Tensor) -> tuple[Tensor, Tensor]:
    """Shift and scale from the even and odd channels."""
    return both[:, 0::2], (both[:, 1::2] + 2).sigmoid() + LEAST_SCALE


def _log_sum(scale: Tensor) -> Tensor:
    return scale.log().sum((1, 2, 3))


def _pixels(x: Tensor) -> int:
    return x.shape[2] * x.shape[3]
