"""Running figures of an epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from mirnet.training.context import Context


@dataclass(frozen=True)
class Means:
    """An epoch's training figures over the samples of all workers."""

    loss: float
    psnr: float
    grad_norm: float
    patches: int


class Meter:
    """Sums over samples, kept on the device: reading them each step would wait for it."""

    def __init__(self, context: Context, sums: list[float]) -> None:
        self._context = context
        start = sums if sums and context.rank == 0 else [0.0] * 4
        self._sums = torch.tensor(start, dtype=torch.float64, device=context.device)
        self.reset_clock()

    @property
    def seconds(self) -> float:
        """Time since the epoch began in this process."""
        return time.perf_counter() - self._started

    def add(self, losses: Tensor, errors: Tensor, norm: Tensor) -> None:
        """Count a batch: losses (n,), squared errors of the clamped output (n,), gradient norm."""
        psnr = -10 * torch.log10(errors.clamp_min(1e-10))
        count = torch.full_like(norm, len(losses))
        self._sums += torch.stack([losses.sum(), psnr.sum(), norm * len(losses), count])

    def total(self) -> list[float]:
        """The sums over all workers; each must call it."""
        return list(self._context.sum(self._sums.clone()).tolist())

    def busy(self) -> dict[str, float]:
        """Core and card seconds of the epoch so far, over all workers; each must call it."""
        card = self.seconds if self._context.device.type == "cuda" else 0.0
        mine = torch.tensor(
            [time.process_time() - self._cpu_started, card],
            dtype=torch.float64,
            device=self._context.device,
        )
        cpu_s, gpu_s = self._context.sum(mine).tolist()
        return {"cpu_s": cpu_s, "gpu_s": gpu_s}

    def means(self) -> Means:
        """Means over all workers; each must call it."""
        loss, psnr, norm, count = self.total()
        return Means(loss / count, psnr / count, norm / count, int(count))

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums.zero_()
        self.reset_clock()

    def reset_clock(self) -> None:
        """Count seconds from now."""
        self._started, self._cpu_started = time.perf_counter(), time.process_time()
