"""The networks as the papers draw them: every operation in its place, none merged or moved.

A second implementation over the same weights: the slow side of benchmarks/inference.py, and what
the tests hold the fast form against.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirnet.models.mirnet.network import MIRNet, MultiScaleBlock
from mirnet.models.mirnet_v2.network import MIRNetV2, MultiScaleBlockV2


def plain_forward(model: nn.Module, image: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 3, H, W), as ``model(image)``."""
    assert isinstance(model, MIRNet | MIRNetV2)
    features = model.conv_in(image)
    for group in model.groups:
        inner = features
        for block in group.blocks:
            inner = (
                _block_v1(block, inner) if isinstance(model, MIRNet) else _block_v2(block, inner)
            )
        features = group.conv(inner) + features
    return image + model.conv_out(features)


def _block_v1(block: MultiScaleBlock, x: Tensor) -> Tensor:
    rows = [_dual_attention(block.attention[0], x)]
    for row in (1, 2):
        below = _resized(block.exchange[f"{row - 1}_{row}"], rows[-1])
        rows.append(_dual_attention(block.attention[row], below))
    mixed = []
    for target in range(3):
        streams = [
            rows[s] if s == target else _resized(block.exchange[f"{s}_{target}"], rows[s])
            for s in range(3)
        ]
        mixed.append(
            _dual_attention(block.attention[target], _fused(block.fusion[target], streams))
        )
    full = [mixed[0], _resized(block.last[0], mixed[1]), _resized(block.last[1], mixed[2])]
    return x + block.conv(_fused(block.fusion[0], full))


# a ModuleList does not say what it holds: parts of blocks are Any
def _dual_attention(unit: Any, x: Tensor) -> Tensor:
    r = unit.conv2(unit.activation(unit.conv1(x)))
    summary = torch.cat((torch.max(r, 1)[0].unsqueeze(1), torch.mean(r, 1).unsqueeze(1)), dim=1)
    spatial = r * torch.sigmoid(unit.spatial.conv(summary))
    squeezed = F.relu(unit.channel.squeeze(F.adaptive_avg_pool2d(r, 1)))
    channel = r * torch.sigmoid(unit.channel.expand(squeezed))
    return unit.fuse(torch.cat((spatial, channel), dim=1)) + x


def _fused(fusion: Any, streams: list[Tensor]) -> Tensor:
    n, c, h, w = streams[0].shape
    stacked = torch.cat(streams, dim=1).view(n, len(streams), c, h, w)
    pooled = F.adaptive_avg_pool2d(torch.sum(stacked, dim=1), 1)
    hidden = fusion.activation(fusion.squeeze(pooled))
    scores = torch.cat([expand(hidden) for expand in fusion.expand], dim=1)
    weights = torch.softmax(scores.view(n, len(streams), c, 1, 1), dim=1)
    return torch.sum(stacked * weights, dim=1)


def _resized(path: Any, x: Tensor) -> Tensor:
    for step in path:
        top = step.activation2(step.conv(step.activation1(step.reduce(x))))
        if hasattr(step, "blur"):
            x = step.expand(step.blur(top)) + step.skip(step.blur(x))
        else:
            x = step.expand(top) + step.skip(_doubled(x))
    return x


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _block_v2(block: MultiScaleBlockV2, x: Tensor) -> Tensor:
    top, mid, bot = x, block.down_mid(x), block.down_bot(x)
    for up_mid, up_top in zip(block.up_mid, block.up_top, strict=True):
        top = _context(block.context_top, top)
        mid = _context(block.context_mid, mid)
        bot = _context(block.context_bot, bot)
        mid = _fused(block.fusion_mid, [mid, _doubled(up_mid.conv(bot))])
        top = _fused(block.fusion_top, [top, _doubled(up_top.conv(mid))])
    return x + block.conv(top)


def _context(unit: Any, x: Tensor) -> Tensor:
    r = unit.conv2(F.leaky_relu(unit.conv1(x), 0.2))
    n, c, h, w = r.shape
    mask = torch.softmax(unit.context.mask(r).view(n, 1, h * w), dim=2)
    context = torch.matmul(r.view(n, 1, c, h * w), mask.view(n, 1, h * w, 1)).view(n, c, 1, 1)
    shift = unit.context.expand(F.leaky_relu(unit.context.squeeze(context), 0.2))
    return x + F.leaky_relu(r + shift, 0.2)
