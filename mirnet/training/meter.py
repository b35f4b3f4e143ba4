"""Running metrics of an epoch, over all workers and restarts."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mirnet.training.context import Context
from mirnet.training.data.batches import Batches


@dataclass(frozen=True)
class StepLosses:
    """Of each sample of this worker's batch, (n,): loss, squared error of the clamped output (NaN:
    the output was not computed), and the terms of the loss without their weights.
    """

    losses: Tensor
    errors: Tensor
    parts: Mapping[str, Tensor]

    @classmethod
    def joined(cls, several: Sequence[StepLosses]) -> StepLosses:
        """Those of the parts of a batch, in their order."""
        names = several[0].parts
        return cls(
            torch.cat([each.losses for each in several]),
            torch.cat([each.errors for each in several]),
            {name: torch.cat([each.parts[name] for each in several]) for name in names},
        )


@dataclass(frozen=True)
class Means:
    """Training metrics of an epoch: means over samples, wall-clock time, busy cores and GPUs.

    ``psnr`` is NaN if a step did not compute the output. ``parts`` has the terms of the loss if
    there are several, over the steps that had them.
    """

    loss: float
    psnr: float
    grad_norm: float
    parts: dict[str, float]
    patches: int
    seconds: float
    waited_s: float
    cpu_s: float
    gpu_s: float


_OTHERS = 8  # sums besides those of the terms


class Meter:
    """Sums over samples, kept on the device: reading them in each step would synchronise.

    Args:
        terms: names of the loss terms.
        sums: of :meth:`total` when an unfinished epoch was saved; empty: a new epoch.
    """

    def __init__(
        self, context: Context, batches: Batches, terms: Sequence[str], sums: list[float]
    ) -> None:
        self._context, self._batches, self._terms = context, batches, tuple(terms)
        start, size = [0.0] * _OTHERS, _OTHERS + 2 * len(self._terms)
        if sums and context.rank == 0:
            start = sums if len(sums) == size else sums[:_OTHERS]
        # a checkpoint of an earlier version: without sums of the terms
        unknown = math.nan if sums and len(sums) != size else 0.0
        start = start + [unknown] * (size - len(start))
        self._sums = torch.tensor(start, dtype=torch.float64, device=context.device)
        self._start_clocks()

    def add(self, done: StepLosses, norm: Tensor) -> None:
        """Add a batch, and the norm of its gradient."""
        psnr = -10 * torch.log10(done.errors.clamp_min(1e-10))
        number = len(done.losses)
        count = torch.full_like(norm, number)
        self._sums[:4] += torch.stack([done.losses.sum(), psnr.sum(), norm * number, count])
        none = norm.new_zeros(())  # a phase need not have all terms
        found = [done.parts[name].sum() if name in done.parts else none for name in self._terms]
        counts = [none + number if name in done.parts else none for name in self._terms]
        self._sums[_OTHERS:] += torch.stack(found + counts)

    def total(self) -> list[float]:
        """The sums over all workers; each must call it."""
        sums = self._sums.clone()
        sums[4:_OTHERS] += torch.tensor(self._clocks(), dtype=sums.dtype, device=sums.device)
        return list(self._context.sum(sums).tolist())

    def means(self) -> Means:
        """Means over all workers; each must call it."""
        loss, psnr, norm, count, *rest = self.total()
        times, values = rest[: _OTHERS - 4], rest[_OTHERS - 4 :]
        sums, counts = values[: len(self._terms)], values[len(self._terms) :]
        known = zip(self._terms, sums, counts, strict=True)
        parts = {name: value / of for name, value, of in known if of > 0}
        parts = parts if len(self._terms) > 1 else {}
        return Means(loss / count, psnr / count, norm / count, parts, int(count), *times)

    def reset(self) -> None:
        """Start an epoch."""
        self._sums.zero_()
        self._start_clocks()

    def _start_clocks(self) -> None:
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
        self._waited_before = self._batches.waited_s

    def _clocks(self) -> tuple[float, float, float, float]:
        """Seconds and waiting seconds, a mean over workers when summed; core and GPU seconds."""
        seconds = time.perf_counter() - self._started
        waited_s = self._batches.waited_s - self._waited_before
        cpu_s = time.process_time() - self._cpu_started
        gpu_s = seconds if self._context.device.type == "cuda" else 0.0
        workers = self._context.world_size
        return seconds / workers, waited_s / workers, cpu_s, gpu_s
