"""Zero-DCE++: Li et al., TPAMI 2021. Modules are named as in the published checkpoints.

The published code crops images to multiples of its scale; here the input has such sizes.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.aligned import aligned_resize
from mirnet.models.layers.curves import ITERATIONS, brightened, estimated_curves
from mirnet.models.layers.pooling import FULL_IMAGE, GlobalPooling
from mirnet.models.network import Network, Prediction


class Separable(nn.Module):
    """A depthwise 3x3 convolution, then 1x1."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.depth_conv = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels)
        self.point_conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.point_conv(self.depth_conv(x))
        return out


class ZeroDCEPlusPlus(Network):
    """One curve, applied eight times, estimated on a reduced copy of the image.

    10,561 parameters in the paper's configuration; H and W multiples of ``scale``.
    """

    num_statistics = 1  # the frame

    def __init__(self, *, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        channels = {1: (3, width), 5: (2 * width, width), 6: (2 * width, width)}
        channels[7] = 2 * width, 3
        for number in range(1, 8):
            self.add_module(f"e_conv{number}", Separable(*channels.get(number, (width, width))))

    def curves(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        """(N, 3, H, W) -> (N, 3, H, W) in [-1, 1], the map of all iterations."""

        def run(number: int, x: Tensor) -> Tensor:
            out: Tensor = self.get_submodule(f"e_conv{number}")(x)
            return out

        height, width = image.shape[2:]
        reduced = image.to(next(self.parameters()).dtype)
        if self.scale == 1:
            return estimated_curves(run, reduced)
        size = height // self.scale, width // self.scale
        reduced = F.interpolate(reduced, size, mode="bilinear", align_corners=False)
        frame = None if statistics.frame is None else statistics.frame / self.scale
        return aligned_resize(estimated_curves(run, reduced), height, width, frame=frame)

    def forward(self, image: Tensor, statistics: GlobalPooling = FULL_IMAGE) -> Tensor:
        return brightened(image, [self.curves(image, statistics)] * ITERATIONS)

    def predict(self, low: Tensor, high: Tensor) -> Prediction:  # noqa: ARG002
        curves = self.curves(low)
        return Prediction(brightened(low, [curves] * ITERATIONS), {"curves": curves})
