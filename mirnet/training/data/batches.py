"""This worker's part of every global batch, prepared one step ahead in a thread."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor

from torch import Tensor

from mirnet.training.context import Context
from mirnet.training.data.on_device import DevicePairs, fits
from mirnet.training.data.pairs import PackedPairs
from mirnet.training.data.sampling import Sampler, load_batch, share


class Batches:
    """Low and high of any step; the next step is prepared while this one is used."""

    def __init__(self, context: Context, pairs: PackedPairs, sampler: Sampler) -> None:
        self._context = context
        self._pairs = pairs
        self._sampler = sampler
        device = context.device
        self._on_device = DevicePairs(pairs, device) if fits(pairs, device) else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None
        self.waited_s = 0.0

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Low and high of a step on the device, float32 (n, 3, P, P) in [0, 1]."""
        started = time.perf_counter()
        ready, self._next = self._next, None
        future = ready[1] if ready and ready[0] == step else self._submit(step)
        low, high = (t.to(self._context.device, non_blocking=True) for t in future.result())
        self._next = (step + 1, self._submit(step + 1))
        self.waited_s += time.perf_counter() - started
        return low, high

    def names(self, step: int) -> list[str]:
        """The pairs in the whole global batch of a step."""
        draws = self._sampler.draws(step)
        partners = [draw.partner for draw in draws if draw.partner]
        return sorted({self._pairs.names[draw.pair] for draw in [*draws, *partners]})

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    def _submit(self, step: int) -> Future[tuple[Tensor, Tensor]]:
        return self._thread.submit(self._load, step)

    def _load(self, step: int) -> tuple[Tensor, Tensor]:
        plan = self._sampler.plan(step)
        part = share(plan.batch_size, rank=self._context.rank, world_size=self._context.world_size)
        draws = self._sampler.draws(step)[part]
        if self._on_device is not None:
            return self._on_device.load_batch(draws, patch_size=plan.patch_size)
        return load_batch(self._pairs, draws, patch_size=plan.patch_size)
