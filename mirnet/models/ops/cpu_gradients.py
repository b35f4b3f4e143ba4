"""Faster backward passes for eager training on a CPU, where torch's take half of a step.

torch differentiates PReLU and depthwise convolutions in bf16 element by element, and accumulates
the gradients of averages and maxima in another memory layout, one element at a time. Values and
gradients equal torch's up to rounding; compiled and traced code and GPUs use torch's own. Second
derivatives raise an error, and ``torch.func`` is not supported. Measured by
``benchmarks/training.py``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _wanted(x: Tensor) -> bool:
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return False
    return x.requires_grad and x.device.type == "cpu"


class PReLU(nn.PReLU):
    """``nn.PReLU`` with one slope, the same values and gradients."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        if _wanted(x):
            out: Tensor = _PReLU.apply(x, self.weight)  # type: ignore[no-untyped-call]
            return out
        return super().forward(x)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.leaky_relu(x, weight.item())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        of_x = torch.ops.aten.leaky_relu_backward(gradient, x, weight.item(), False)
        # summed in float32 inside; a sum that returns float32 would first copy the map to it
        of_weight = x.clamp_max(0).mul_(gradient).sum()
        return of_x, of_weight.to(weight.dtype).reshape(weight.shape)


def blur_down(x: Tensor, kernel: Tensor) -> Tensor:
    """[1 2 1] x [1 2 1] / 16, reflect padding, stride 2, by the depthwise ``kernel`` of that.

    (N, C, H, W) -> (N, C, H/2, W/2); H and W even.
    """
    # in float32 the convolution's own gradient is the faster one
    if x.dtype == torch.bfloat16 and _wanted(x):
        out: Tensor = _BlurDown.apply(x, kernel)  # type: ignore[no-untyped-call]
        return out
    return _blur(x, kernel)


def _blur(x: Tensor, kernel: Tensor) -> Tensor:
    padded = F.pad(x, (1, 1, 1, 1), mode="reflect")
    return F.conv2d(padded, kernel.to(x.dtype), stride=2, groups=x.shape[1])


class _BlurDown(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, x: Tensor, kernel: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):  # which would pad in float32
            return _blur(x, kernel)

    @staticmethod
    @once_differentiable
    def backward(_: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return _spread(_spread(gradient / 16, dim=3), dim=2), None


def _spread(gradient: Tensor, *, dim: int) -> Tensor:
    """Gradient of ``x[-1] + 2 x[0] + x[1], x[1] + 2 x[2] + x[3], ...`` where ``x[-1]`` is ``x[1]``.

    An even place is in one sum, twice; an odd one in its own, and in the next or, the first, again
    in its own.
    """
    shape = list(gradient.shape)
    length, shape[dim] = shape[dim], 2 * shape[dim]
    out = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
    even, odd = torch.unflatten(out, dim, (length, 2)).unbind(dim + 1)
    torch.mul(gradient, 2, out=even)
    torch.add(
        gradient.narrow(dim, 0, length - 1),
        gradient.narrow(dim, 1, length - 1),
        out=odd.narrow(dim, 0, length - 1),
    )
    last = gradient.narrow(dim, length - 1, 1)
    odd.narrow(dim, length - 1, 1).copy_(last)
    odd.narrow(dim, 0, 1).add_(gradient.narrow(dim, 0, 1))
    return out


def global_mean(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, C, 1, 1)."""
    if _wanted(x):
        out: Tensor = _GlobalMean.apply(x)  # type: ignore[no-untyped-call]
        return out
    return _global_mean(x)


def _global_mean(x: Tensor) -> Tensor:
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not torch.compiler.is_compiling():
        # mean() copies the map to float32 first, sum() adds in float32 without
        return x.sum(dim=(2, 3), keepdim=True) / (x.shape[2] * x.shape[3])
    return x.mean(dim=(2, 3), keepdim=True)


class _GlobalMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape = x.shape
        return _global_mean(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        height, width = ctx.shape[2:]
        spread = (gradient / (height * width)).expand(ctx.shape)
        of_x: Tensor = spread.contiguous(memory_format=torch.channels_last)
        return of_x


def max_and_mean(x: Tensor) -> Tensor:
    """Largest and mean value over the channels: (N, C, H, W) -> (N, 2, H, W)."""
    if _wanted(x):
        out: Tensor = _MaxAndMean.apply(x)  # type: ignore[no-untyped-call]
        return out
    return torch.cat((x.amax(1, keepdim=True), x.mean(1, keepdim=True)), 1)


class _MaxAndMean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        largest = x.amax(1, keepdim=True)
        ctx.save_for_backward(x, largest)
        return torch.cat((largest, x.mean(1, keepdim=True)), 1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            x, largest = ctx.saved_tensors
            return _max_and_mean_gradient(x, largest, gradient)


def _max_and_mean_gradient(x: Tensor, largest: Tensor, gradient: Tensor) -> Tensor:
    count, channels, height, width = x.shape
    ones = x.new_ones(1, channels)

    def over_channels(value: Tensor) -> Tensor:  # faster than broadcasting, for few channels
        spread: Tensor = value.reshape(-1, 1) @ ones
        return spread

    pixels = x.permute(0, 2, 3, 1).reshape(-1, channels)
    below = pixels - over_channels(largest)
    is_largest = torch.ops.aten.threshold_backward(torch.ones_like(below), below, -1e-30)
    of_max, of_mean = (g.reshape(-1, 1) for g in gradient.unbind(1))
    of_max = of_max / (is_largest @ ones.t())  # equal ones share it
    of_x: Tensor = is_largest * over_channels(of_max) + over_channels(of_mean / channels)
    return of_x.reshape(count, height, width, channels).permute(0, 3, 1, 2)
