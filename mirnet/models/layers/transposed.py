"""Attention between channels, whose cost grows with the pixels, not with their square.

Restormer (Zamir et al., CVPR 2022), Retinexformer (Cai et al., ICCV 2023) and CIDNet (Yan et al.,
CVPR 2025) use it. All take and give (N, C, H, W).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.layers.pooling import GlobalPooling


def mix_channels(
    first: Tensor, second: Tensor, values: Tensor, scale: Tensor, statistics: GlobalPooling
) -> Tensor:
    """Each channel becomes an average of the values, weighted by its similarity to ``second``.

    Args:
        first: (N, C, H, W), a map per channel of the output.
        second: (N, C, H, W), a map per channel of the values, (N, C, H, W).
        scale: (heads, 1, 1), multiplies the cosines before the softmax; contiguous channels
            belong to a head.
    """
    n, channels, height, width = values.shape
    heads = len(scale)
    cosines = statistics.correlation(first, second, heads=heads)
    weights = (cosines * scale).softmax(-1).to(values.dtype)
    mixed = weights @ values.reshape(n, heads, channels // heads, -1)
    return mixed.reshape(n, channels, height, width)


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels of each pixel.

    Args:
        bias: without it the mean is not subtracted either, although the variance is around it
            (Restormer's variant for denoising).
        eps: inside of the root.
    """

    def __init__(self, channels: int, *, bias: bool = True, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is None:
            precise = x.to(torch.promote_types(x.dtype, torch.float32))
            deviation = (precise.var(1, keepdim=True, correction=0) + self.eps).sqrt()
            return (precise / deviation * self.weight[:, None, None]).to(x.dtype)
        last = x.permute(0, 2, 3, 1)
        normed = F.layer_norm(last, last.shape[-1:], self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)
