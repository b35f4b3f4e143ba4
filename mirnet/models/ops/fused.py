"""Fused convolution and activation, where a library has such a kernel.

oneDNN applies the activation to each output while it is in registers, which saves one read and
write of the feature map: https://uxlfoundation.github.io/oneDNN/dev_guide_attributes_post_ops.html.
Results equal those of the two operations, rounded once. Training, tracing and GPUs use the two.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def _fused_types() -> tuple[torch.dtype, ...]:
    if not torch._C._has_mkldnn:
        return ()
    bf16 = torch.ops.mkldnn._is_mkldnn_bf16_supported()  # not on every processor
    return (torch.float32, torch.bfloat16) if bf16 else (torch.float32,)


_FUSED_TYPES = _fused_types()


def conv_act(conv: nn.Conv2d | nn.ConvTranspose2d, activation: nn.Module, x: Tensor) -> Tensor:
    """``activation(conv(x))`` for an activation with one slope for negative values.

    (N, C, H, W) -> (N, D, H', W'); ``conv`` has no bias and the same stride and padding in height
    and width.

    Args:
        activation: ``nn.PReLU`` with one parameter, or ``nn.LeakyReLU``.
    """
    out: Tensor
    if not _fusible(conv, x):
        out = activation(conv(x))
        return out
    slope = (
        activation.weight
        if isinstance(activation, nn.PReLU)
        else torch.tensor([activation.negative_slope])
    )
    transposed = isinstance(conv, nn.ConvTranspose2d)
    out = torch.ops.mirnet.conv_act(
        x,
        conv.weight,
        slope,
        int(conv.stride[0]),
        int(conv.padding[0]),
        int(conv.output_padding[0]),
        int(conv.groups),
        transposed,
    )
    return out


def _fusible(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor) -> bool:
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or x.device.type != "cpu":
        return False
    # the compiler cannot trace _get_tracing_state, which is then not called
    traced = not torch.compiler.is_compiling() and torch._C._get_tracing_state() is not None
    if torch.compiler.is_exporting() or traced:
        return False
    return x.dtype == conv.weight.dtype and x.dtype in _FUSED_TYPES


# defined without torch.library.custom_op, whose wrapper takes 0.1 ms per call
torch.library.define(
    "mirnet::conv_act",
    "(Tensor x, Tensor weight, Tensor slope, int stride, int padding, int output_padding,"
    " int groups, bool transposed) -> Tensor",
)
torch.library.define("mirnet::materialized", "(Tensor x) -> Tensor")


@torch.library.impl("mirnet::conv_act", "CPU")
def _conv_act(
    x: Tensor,
    weight: Tensor,
    slope: Tensor,
    stride: int,
    padding: int,
    output_padding: int,
    groups: int,
    transposed: bool,
) -> Tensor:
    # the slope is a tensor: a number would be part of compiled code, one for each block
    pads, strides, none = [padding] * 2, [stride] * 2, [1, 1]
    value = [slope.item()]
    if transposed:
        extra = [output_padding] * 2
        out: Tensor = torch.ops.mkldnn._convolution_transpose_pointwise(
            x, weight, None, pads, extra, strides, none, groups, "leaky_relu", value, ""
        )
    else:
        out = torch.ops.mkldnn._convolution_pointwise(
            x, weight, None, pads, strides, none, groups, "leaky_relu", value, ""
        )
    return out.contiguous(memory_format=torch.channels_last)  # as it is, where the input was


@torch.library.register_fake("mirnet::conv_act")  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    weight: Tensor,
    slope: Tensor,
    stride: int,
    padding: int,
    output_padding: int,
    groups: int,
    transposed: bool,
) -> Tensor:
    del slope
    pads, strides = [padding] * 2, [stride] * 2
    if transposed:
        extra = [output_padding] * 2
        out = F.conv_transpose2d(x, weight, None, strides, pads, extra, groups)
    else:
        out = F.conv2d(x, weight, None, strides, pads, groups=groups)
    return out.contiguous(memory_format=torch.channels_last)


def materialized(x: Tensor) -> Tensor:
    """The same values; compiled code stores them instead of recomputing them for each pixel."""
    if (
        torch.is_grad_enabled()
        or torch.compiler.is_exporting()
        or not torch.compiler.is_compiling()
    ):
        return x
    out: Tensor = torch.ops.mirnet.materialized(x)
    return out


@torch.library.impl("mirnet::materialized", "CompositeExplicitAutograd")
def _materialized(x: Tensor) -> Tensor:
    return x.clone()


@torch.library.register_fake("mirnet::materialized")  # type: ignore[untyped-decorator]
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)
