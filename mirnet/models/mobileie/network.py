"""MobileIE: Yan et al., ICCV 2025. Modules are named as in the published checkpoints.

In training each convolution is a :class:`Branches`; :meth:`MobileIE.folded` gives the same function
with one convolution in place of each. The warm-up has a second tail, which is not stored.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network, Prediction

# kernels of the branches, by the size of the convolution that they fold into
_KERNELS = {
    5: {"conv": (5, 5), "conv1": (1, 1), "conv2": (3, 3)},
    3: {"conv": (3, 3), "conv1": (1, 1)},
    1: {"conv": (1, 1)},
}
_CROSS = {"conv_crossh": (3, 1), "conv_crossv": (1, 3)}

WARM_UP = "warm-up"
_DROP, _DROP_SIDE = 0.5, 3  # share of the blocks of the image, and their side in pixels


class Branches(nn.Module):
    """MBRConv (section 3.2): convolutions of several shapes, each with and without normalisation.

    (N, C, H, W) -> (N, D, H, W).

    Args:
        size: height and width of the convolution that it folds into: 1, 3 or 5.
        width: output channels of each branch.
    """

    def __init__(self, in_channels: int, out_channels: int, size: int, *, width: int) -> None:
        super().__init__()
        self.size = size
        kernels = _KERNELS[size] | (_CROSS if size > 1 else {})
        self.names = tuple(kernels)
        for name, kernel in kernels.items():
            padding = kernel[0] // 2, kernel[1] // 2
            self.add_module(name, nn.Conv2d(in_channels, width, kernel, padding=padding))
            self.add_module(f"{name}_bn", nn.Sequential(nn.BatchNorm2d(width)))
        self.conv_out = nn.Conv2d(2 * len(kernels) * width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        plain = [self.get_submodule(name)(x) for name in self.names]
        normed = [
            self.get_submodule(f"{name}_bn")(branch)
            for name, branch in zip(self.names, plain, strict=True)
        ]
        out: Tensor = self.conv_out(torch.cat([*plain, *normed], dim=1))
        return out

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """One convolution that computes the same with the running statistics."""
        weights, biases, scaled, shifted = [], [], [], []
        for name in self.names:
            conv, norm = self.get_submodule(name), self.get_submodule(f"{name}_bn.0")
            assert isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
            assert conv.bias is not None
            assert norm.running_mean is not None and norm.running_var is not None
            rows, columns = ((self.size - side) // 2 for side in conv.kernel_size)
            weight = F.pad(conv.weight, (columns, columns, rows, rows))
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            weights.append(weight)
            biases.append(conv.bias)
            scaled.append(weight * scale[:, None, None, None])
            shifted.append((conv.bias - norm.running_mean) * scale + norm.bias)
        mix = self.conv_out.weight.flatten(1)
        stacked = torch.cat([*weights, *scaled])
        one = nn.Conv2d(stacked.shape[1], len(mix), self.size, padding=self.size // 2)
        assert one.bias is not None and self.conv_out.bias is not None
        one.weight.copy_((mix @ stacked.flatten(1)).reshape(one.weight.shape))
        one.bias.copy_(mix @ torch.cat([*biases, *shifted]) + self.conv_out.bias)
        return one


def _convolution(in_channels: int, out_channels: int, size: int, *, width: int) -> nn.Module:
    """The convolution itself without a width of branches."""
    if width:
        return Branches(in_channels, out_channels, size, width=width)
    return nn.Conv2d(in_channels, out_channels, size, padding=size // 2)


class FeatureSelfTransform(nn.Module):
    """FST (section 3.3): the product of two scaled copies of the features, shifted.

    ``block1`` gives the features. Products of 8-bit mantissas would keep little of dark features,
    so they are formed in float32.
    """

    def __init__(self, block1: nn.Module, channels: int) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.randn(1))
        self.weight2 = nn.Parameter(torch.randn(1))
        self.bias = nn.Parameter(torch.randn(1, channels, 1, 1))
        self.block1 = block1

    def forward(self, x: Tensor) -> Tensor:
        features = self.block1(x).float()
        product = (self.weight1 * features) * (self.weight2 * features) + self.bias
        out: Tensor = product.to(x.dtype)
        return out


class MobileIE(Network):
    """47,239 parameters in the paper's configuration, 4,075 folded."""

    num_statistics = 1

    def __init__(self, *, channels: int, expansion: int) -> None:
        super().__init__()
        width = channels * expansion
        self.head = FeatureSelfTransform(
            nn.Sequential(
                _convolution(3, channels, 5, width=width),
                nn.PReLU(channels),
                _convolution(channels, channels, 3, width=width),
            ),
            channels,
        )
        self.body = FeatureSelfTransform(_convolution(channels, channels, 3, width=width), channels)
        # at their places in the published network, whose other modules have no parameters
        self.att = nn.ModuleDict({"1": _convolution(channels, channels, 1, width=width)})
        self.att1 = nn.ModuleDict({"0": _convolution(1, channels, 1, width=width)})
        self.tail = self._new_tail(channels, expansion)

    @staticmethod
    def _new_tail(channels: int, expansion: int) -> nn.Module:
        return _convolution(channels, 3, 3, width=3 * expansion)

    def add_training_parts(self, phases: Collection[str]) -> None:
        if WARM_UP in phases:
            self.tail_warm = self._new_tail(**self.config.sizes.model_dump())

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        x = self.body(self.head(image.to(self.head.bias.dtype)))
        by_channel = self.att["1"](statistics.mean(x)).sigmoid()
        by_pixel = self.att1["0"]((by_channel * x).amax(1, keepdim=True)).sigmoid()
        out: Tensor = self.tail(by_pixel * by_channel * x)
        return out.float()

    def predict(self, low: Tensor, high: Tensor) -> Prediction:
        """In the warm-up without attention, from an image with gaps, with a second output."""
        if self.phase != WARM_UP:
            return super().predict(low, high)
        x = self.body(self.head(with_gaps(low)))
        return Prediction(self.tail(x), {"reconstruction": self.tail_warm(x)})

    def folded(self) -> Network:
        if not self.config.sizes.model_dump()["expansion"]:
            return self
        plain = self.architecture.configure(
            self.config.sizes.model_dump() | {"expansion": 0}
        ).build()
        weights = dict(self.state_dict())
        for name, module in self.named_modules():
            if isinstance(module, Branches):
                weights = {k: v for k, v in weights.items() if not k.startswith(f"{name}.")}
                weights |= {f"{name}.{k}": v for k, v in module.folded().state_dict().items()}
        plain.load_state_dict(weights)
        return plain.train(self.training)


def with_gaps(images: Tensor) -> Tensor:
    """The images with blocks of 3x3 pixels set to 0 in all channels (DropBlock), (N, 3, H, W).

    The random numbers of an image are a function of its values: they do not depend on the worker,
    nor on an interruption.
    """
    gaps = [_gaps(image) for image in images]
    return images * (1 - torch.stack(gaps).to(images))


def _gaps(image: Tensor) -> Tensor:
    bits = image.detach().float().contiguous().view(torch.int32)
    generator = torch.Generator().manual_seed(int(bits.sum(dtype=torch.int64)) % 2**63)
    seeds = torch.rand(1, *image.shape[1:], generator=generator) < _DROP / _DROP_SIDE**2
    return F.max_pool2d(seeds.float(), _DROP_SIDE, stride=1, padding=_DROP_SIDE // 2)
