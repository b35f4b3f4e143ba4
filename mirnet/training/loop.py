"""The training loop: torch only, against a :class:`~mirnet.training.context.Context`."""

from __future__ import annotations

import logging
import math
import tempfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from mirnet.config import Params, TrainParams
from mirnet.errors import TrainingError
from mirnet.models import build
from mirnet.results import EpochMetrics
from mirnet.training.checkpoints import Progress, TrainState, fingerprint
from mirnet.training.context import Context
from mirnet.training.losses import charbonnier
from mirnet.training.pairs import PackedPairs
from mirnet.training.sampling import Draw, draw_batch, load_batch, share
from mirnet.training.schedules import Schedule
from mirnet.training.validation import validate

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What is trained on what; the same for every worker."""

    params: Params
    train: PackedPairs
    val: PackedPairs
    digest: str

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps an epoch."""
        recipe = self.params.train
        return recipe.steps_per_epoch or math.ceil(len(self.train) / recipe.batch_size)

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.params.train.num_epochs


def fit(context: Context, job: Job) -> None:
    """Train from the run's last checkpoint, or from the start, to the last epoch.

    Raises:
        TrainingError: a loss or gradient is not finite; names the pairs of the batch.
    """
    recipe = job.params.train
    state = start_state(context, job)
    model = context.wrap(state.model)
    autocast = autocast_dtype(recipe, context.device)
    batches = Batches(context, job)
    meter = Meter(context, state.progress.sums)

    while state.progress.step < job.total_steps:
        step = state.progress.step
        low, high = batches.take(step)
        lr = state.schedule.lr(step)
        for group in state.optimizer.param_groups:
            group["lr"] = lr

        with torch.autocast(context.device.type, dtype=autocast, enabled=autocast is not None):
            output = model(low)
        losses = charbonnier(output.float(), high, eps=recipe.charbonnier_eps)
        # DDP averages over workers: this makes it the exact mean over the global batch.
        loss = losses.sum() * (context.world_size / recipe.batch_size)
        torch.autograd.backward(loss)
        norm = nn.utils.clip_grad_norm_(model.parameters(), recipe.grad_clip or math.inf)
        if not torch.isfinite(norm):  # equal on all workers, as gradients are averaged
            raise TrainingError(batches.blame(step))
        state.optimizer.step()
        state.optimizer.zero_grad()

        state.progress.step += 1
        meter.add(losses.detach(), output.detach(), high, norm)
        if state.progress.step % job.steps_per_epoch == 0:
            metrics = end_epoch(context, job, state, meter, batches, lr)
            context.report(metrics, write_checkpoint(context, job, state))


def start_state(context: Context, job: Job) -> TrainState:
    """A fresh state, or that of the run's last checkpoint."""
    recipe = job.params.train
    torch.manual_seed(recipe.seed)
    model = build(job.params.model).to(context.device, memory_format=torch.channels_last)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    optimizer = kinds[recipe.optimizer](
        model.parameters(), lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
    )
    state = TrainState(
        model=model,
        optimizer=optimizer,
        schedule=Schedule(recipe, total_steps=job.total_steps),
        progress=Progress(fingerprint=fingerprint(job.params, job.digest, job.train.names)),
    )
    with context.restored() as folder:
        if folder is not None:
            state.load(folder)
            logger.info("going on at step %d", state.progress.step)
    return state


def end_epoch(
    context: Context, job: Job, state: TrainState, meter: Meter, batches: Batches, lr: float
) -> EpochMetrics:
    """Validate, tell the schedule, keep the best, and add the epoch to the history."""
    steps_done = state.progress.step
    epoch = steps_done // job.steps_per_epoch - 1
    means, train_seconds = meter.means(), meter.seconds
    autocast = autocast_dtype(job.params.train, context.device)
    scores = validate(context, state.model, job.val, autocast=autocast)
    val_psnr = float(scores.psnr.mean())
    metrics = EpochMetrics(
        epoch=epoch,
        step=steps_done,
        lr=lr,
        train_loss=means.loss,
        train_psnr=means.psnr,
        val_loss=float(scores.loss.mean()),
        val_psnr=val_psnr,
        val_ssim=float(scores.ssim.mean()),
        grad_norm=means.grad_norm,
        patches_per_s=means.patches / train_seconds,
        wait_share=batches.waited_s / train_seconds,
        seconds=meter.seconds,
    )
    state.schedule.validated(val_psnr)
    state.keep_if_best(metrics)
    state.progress.history.append(metrics)
    meter.reset()
    batches.waited_s = 0.0
    return metrics


def describe(metrics: EpochMetrics, num_epochs: int) -> str:
    """An epoch in one line."""
    left = metrics.seconds * (num_epochs - metrics.epoch - 1)
    return (
        f"epoch {metrics.epoch + 1}/{num_epochs}: loss {metrics.train_loss:.4f}, "
        f"validation {metrics.val_psnr:.2f} dB, {metrics.patches_per_s:.1f} patches/s, "
        f"about {left:.0f} s left"
    )


def write_checkpoint(context: Context, job: Job, state: TrainState) -> Path | None:
    """The state as a folder on rank 0, None elsewhere."""
    if context.rank != 0:
        return None
    folder = Path(tempfile.mkdtemp(prefix="mirnet-checkpoint-"))
    state.save(folder, job.params)
    return folder


def autocast_dtype(recipe: TrainParams, device: torch.device) -> torch.dtype | None:
    """The type to compute in; None is float32. ``auto`` takes bf16 where hardware has it."""
    if recipe.precision == "float32":
        return None
    if recipe.precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else None
    has_bf16 = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if has_bf16 else None


class Batches:
    """This worker's part of every global batch, cut one step ahead in a thread."""

    def __init__(self, context: Context, job: Job) -> None:
        self._job = job
        self._device = context.device
        self._part = share(
            job.params.train.batch_size, rank=context.rank, world_size=context.world_size
        )
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
        self._next: tuple[int, Future[tuple[Tensor, Tensor]]] | None = None
        self.waited_s = 0.0

    def take(self, step: int) -> tuple[Tensor, Tensor]:
        """Low and high of a step on the device, float32 (n, 3, P, P) in [0, 1]."""
        started = time.perf_counter()
        ready = self._next
        self._next = None
        future = ready[1] if ready and ready[0] == step else self._submit(step)
        low, high = (t.to(self._device, non_blocking=True) for t in future.result())
        if step + 1 < self._job.total_steps:
            self._next = (step + 1, self._submit(step + 1))
        self.waited_s += time.perf_counter() - started
        return low, high

    def blame(self, step: int) -> str:
        """What to say when a step's gradient is not finite."""
        names = sorted({self._job.train.names[draw.pair] for draw in self._draws(step)})
        return (
            f"step {step}: the loss or gradient is not finite; its batch held {', '.join(names)}. "
            "Lower train.lr, set train.grad_clip, or look at these pairs"
        )

    def _draws(self, step: int) -> list[Draw]:
        recipe = self._job.params.train
        return draw_batch(
            seed=recipe.seed,
            step=step,
            batch_size=recipe.batch_size,
            num_pairs=len(self._job.train),
        )

    def _submit(self, step: int) -> Future[tuple[Tensor, Tensor]]:
        patch_size = self._job.params.train.patch_size
        draws = self._draws(step)[self._part]
        return self._thread.submit(load_batch, self._job.train, draws, patch_size=patch_size)


@dataclass(frozen=True)
class Means:
    """An epoch's training figures over the samples of all workers."""

    loss: float
    psnr: float
    grad_norm: float
    patches: int


class Meter:
    """Sums of an epoch over samples."""

    def __init__(self, context: Context, sums: list[float]) -> None:
        self._context = context
        start = sums if sums and context.rank == 0 else [0.0] * 4
        self._sums = torch.tensor(start, dtype=torch.float64, device=context.device)
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time since the epoch began in this process."""
        return time.perf_counter() - self._started

    def add(self, losses: Tensor, output: Tensor, high: Tensor, norm: Tensor) -> None:
        """Count a batch: losses (n,), output and reference (n, 3, P, P), gradient norm."""
        error = (output.float().clamp(0, 1) - high).square().mean(dim=(1, 2, 3))
        psnr = -10 * torch.log10(error.clamp_min(1e-10))
        count = torch.full_like(norm, len(losses))
        self._sums += torch.stack([losses.sum(), psnr.sum(), norm * len(losses), count])

    def total(self) -> list[float]:
        """The sums over all workers; each must call it."""
        return list(self._context.sum(self._sums.clone()).tolist())

    def means(self) -> Means:
        """Means over all workers; each must call it."""
        loss, psnr, norm, count = self.total()
        return Means(loss / count, psnr / count, norm / count, int(count))

    def reset(self) -> None:
        """Begin an epoch."""
        self._sums.zero_()
        self._started = time.perf_counter()
