"""What the workers of a run compute together, over torch.distributed's default group."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Workers:
    """The part of a :class:`~mirnet.training.context.Context` that needs a process group only."""

    def wrap(self, model: nn.Module, *, partial: bool = False) -> nn.Module:
        """DDP, also for one worker: the arithmetic is then the same for any number.

        Batch normalisation uses the statistics of the global batch from then on. They are equal on
        all workers, bit by bit, and so are the running ones: no buffer needs to be sent.
        """
        share_batch_statistics(model)
        return DistributedDataParallel(
            model,
            gradient_as_bucket_view=True,
            broadcast_buffers=False,
            find_unused_parameters=partial,
        )

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        assert isinstance(wrapped, DistributedDataParallel)
        return wrapped.no_sync()

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the workers, in place."""
        dist.all_reduce(values)
        return values


def share_batch_statistics(model: nn.Module) -> None:
    """Let all batch normalisations of a model use the statistics of the global batch.

    Raises:
        TypeError: a batch normalisation that is not over images.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm3d):
            raise TypeError(f"{name}: statistics over workers are for nn.BatchNorm2d only")
        if type(module) is nn.BatchNorm2d:
            # not a new module: a network may know this one by several names
            module.__class__ = GlobalBatchNorm2d


class GlobalBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the mean and variance of the batch of all workers.

    Torch's ``SyncBatchNorm`` does the same on GPUs and refuses CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = super().forward(x)
            return out
        out, mean, variance, count = _normalise(x, self.weight, self.bias, self.eps)
        self._track(mean, variance, count)
        return out

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        share = 1 / self.num_batches_tracked if momentum is None else momentum
        unbiased = variance * (count / (count - 1))
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            running.add_(share * (new.to(running.dtype) - running))


class _Normalise(torch.autograd.Function):
    """Forward and backward pass with one sum over the workers each.

    Local means and variances, which have no cancellation, are combined in float64.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = x if x.dtype == torch.float64 else x.float()
        variance, mean = (v.double() for v in torch.var_mean(values, (0, 2, 3), correction=0))
        count = x.new_full((1,), x.numel() // x.shape[1], dtype=torch.float64)
        sums = torch.cat([count, count * mean, count * (variance + mean.square())])
        dist.all_reduce(sums)
        count, (first, second) = sums[:1], sums[1:].reshape(2, -1)
        if count < 2:
            raise ValueError("batch statistics need more than one value per channel")
        mean, variance = first / count, (second / count - (first / count).square()).clamp_min(0)
        used = [v.to(values.dtype) for v in (mean, variance)]
        out = F.batch_norm(values, used[0], used[1], weight, bias, eps=eps)
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), count)
        ctx.mark_non_differentiable(mean, variance, count)
        return out.to(x.dtype), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale, count = ctx.saved_tensors
        kind = x.dtype if x.dtype == torch.float64 else torch.float32
        gradient, mean_, scale_ = gradient.to(kind), _maps(mean, kind), _maps(scale, kind)
        normed = (x.to(kind) - mean_) * scale_
        local = torch.stack([gradient.sum((0, 2, 3)), (gradient * normed).sum((0, 2, 3))])
        over_batch = local.double()
        dist.all_reduce(over_batch)
        of_mean, of_scale = (_maps(v, kind) for v in over_batch / count)
        slope = scale_ if weight is None else scale_ * _maps(weight, kind)
        of_x = (gradient - of_mean - normed * of_scale) * slope
        of_bias, of_weight = local
        wanted = ctx.needs_input_grad
        return (
            of_x.to(x.dtype),
            of_weight.to(weight.dtype) if wanted[1] else None,
            of_bias.to(weight.dtype) if wanted[2] else None,
            None,
        )


def _maps(values: Tensor, dtype: torch.dtype) -> Tensor:
    return values.to(dtype)[:, None, None]


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _normalise(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    apply: Any = _Normalise.apply
    out: tuple[Tensor, Tensor, Tensor, Tensor] = apply(x, weight, bias, eps)
    return out
