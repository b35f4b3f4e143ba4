"""Running metrics of an epoch, over all workers and restarts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mirnet.training.context import Context
from mirnet.training.data.batches import Batches


@dataclass(frozen=True)
class Means:
    """Training metrics of an epoch: means over samples, wall-clock time, busy cores and GPUs."""

    loss: float
    psnr: float
    grad_norm: float
    patches: int
    seconds: float
    waited_s: float
    cpu_s: float
    gpu_s: float


class Meter:
    """Sums over samples, kept on the device: reading them in each step would synchronise.

    Args:
        sums: of :meth:`total` when an unfinished epoch was saved; empty: a new epoch.
    """

    def __init__(self, context: Context, batches: Batches, sums: list[float]) -> None:
        self._context, self._batches = context, batches
        start = sums if sums and context.rank == 0 else [0.0] * 8
        self._sums = torch.tensor(start, dtype=torch.float64, device=context.device)
        self._start_clocks()

    def add(self, losses: Tensor, errors: Tensor, norm: Tensor) -> None:
        """Add a batch: losses (n,), squared errors of the clamped output (n,), gradient norm."""
        psnr = -10 * torch.log10(errors.clamp_min(1e-10))
        count = torch.full_like(norm, len(losses))
        self._sums[:4] += torch.stack([losses.sum(), psnr.sum(), norm * len(losses), count])

    def total(self) -> list[float]:
        """The sums over all workers; each must call it."""
        sums = self._sums.clone()
        sums[4:] += torch.tensor(self._clocks(), dtype=sums.dtype, device=sums.device)
        return list(self._context.sum(sums).tolist())

    def means(self) -> Means:
        """Means over all workers; each must call it."""
        loss, psnr, norm, count, *times = self.total()
        return Means(loss / count, psnr / count, norm / count, int(count), *times)

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
