"""The training loop: torch only, against a :class:`~mirnet.training.context.Context`."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mirnet.errors import StorageError, TrainingError, first_line
from mirnet.models import Network
from mirnet.models.network import Prediction
from mirnet.objectives.registry import by_name
from mirnet.objectives.supervised.terms import charbonnier
from mirnet.objectives.total import Sample, combined
from mirnet.results import EpochMetrics
from mirnet.signals import advance
from mirnet.training.acceleration import autocast, compile_blocks, precision_of
from mirnet.training.checkpoints import TrainState, on_device
from mirnet.training.context import Context
from mirnet.training.data import samples
from mirnet.training.data.batches import Batches
from mirnet.training.data.sampling import Sampler
from mirnet.training.job import Job
from mirnet.training.meter import Meter, StepLosses
from mirnet.training.usage import NodeMonitor
from mirnet.training.validation import validate

logger = logging.getLogger(__name__)

MAX_ROLLBACKS = 3
_SCRATCH = "mirnet-checkpoint-"
_SCRATCH_KEPT_S = 3600


def fit(context: Context, job: Job) -> None:
    """Train from the run's last checkpoint, or from the start, to the last epoch.

    Raises:
        TrainingError: a loss or gradient is not finite (names the pairs of the batch), the run name
            belongs to another recipe, or the device has too little memory.
    """
    recipe = job.params.train
    if context.rank == 0:
        sweep_scratch()
    state = TrainState.start(job, context.device)
    with context.restored() as folder:
        if folder is not None:
            state.load(folder)
            logger.info("going on at step %d", state.progress.step)
    networks = [state.model]
    if job.teacher is not None:
        networks.append(on_device(job.teacher.requires_grad_(False), context.device))
    if job.features is not None:
        job.features.to(context.device)
    if recipe.compile:
        for network in networks:
            compile_blocks(network)
    training_pass = TrainingPass(state)
    # by-products of some parts of the network may be read alone, and a phase may train a part
    wrapped = context.wrap(training_pass, partial=training_pass.partial)
    step_of = StepOf(context, recipe.accumulate, wrapped, state.scaler)
    sampler = Sampler(
        recipe,
        num_pairs=job.num_pairs,
        total_steps=job.total_steps,
        num_replayed=job.num_replayed,
    )
    monitor = NodeMonitor(context.node) if context.local_rank == 0 else None
    undo = Undo(state) if recipe.on_nonfinite == "rollback" else None

    with closing(Batches(context, job.train, sampler)) as batches, memory_advice():
        meter = Meter(context, batches, job.terms, state.progress.sums)
        while not state.finished:
            advance()
            step = state.progress.step
            low, high = batches.take(step)
            lr = state.start_step()
            losses = step_of(low, high, batch_size=sampler.plan(step).batch_size)
            norm = state.clip()
            if not torch.isfinite(norm):  # equal on all workers, since gradients are averaged
                if state.lower_scale():  # repeat the same batch
                    continue
                message = f"step {step}: loss or gradient is not finite; its batch held "
                message += ", ".join(batches.names(step))
                go_back(state, undo, message)
                meter = Meter(context, batches, job.terms, state.progress.sums)
                continue
            state.update()
            meter.add(losses, norm)

            done, metrics = state.progress.step, None
            if done % job.steps_per_epoch == 0:
                metrics = end_epoch(context, state, meter, lr=lr)
                if monitor is not None:
                    context.emit([monitor.read(metrics.epoch)])
            if state.finished or done % job.checkpoint_every == 0:
                state.progress.sums = [] if metrics else meter.total()
                context.report(metrics, write_checkpoint(context, state))
                undo = Undo(state) if undo is not None else None
            elif metrics is not None:
                context.report(metrics, None)


class TrainingPass(nn.Module):
    """Network and loss as one forward pass.

    A wrapped module that returned by-products would wait for the gradients of those, too, that the
    loss does not read.
    """

    def __init__(self, state: TrainState) -> None:
        super().__init__()
        self.network, self.discriminator = state.model, state.discriminator
        self._job = job = state.job
        self.partial = any(by_name(name).details for name in job.terms) or len(job.spans) > 1

    def forward(self, low: Tensor, high: Tensor) -> tuple[Tensor, StepLosses]:
        """(N, 3, H, W) both -> what is minimised (N,), and the loss and its parts as values.

        They differ by the loss of the discriminator, whose gradient reaches nothing else.
        """
        recipe, phase = self._job.params.train, self.network.phase
        weights = next(span.loss for span in self._job.spans if span.name == phase)
        with autocast(precision_of(self._job.params), low.device):
            if phase or any(by_name(name).details for name in weights):
                prediction = self.network.predict(low, high)
            else:
                prediction = Prediction(self.network(low))
            unread = not isinstance(prediction.given, Tensor) and not self._reads_output(weights)
            output = low.new_empty(0) if unread else prediction.output.float()
        sample = Sample(
            output=output,
            low=low,
            high=high,
            details={name: value.float() for name, value in prediction.details.items()},
            eps=recipe.charbonnier_eps,
            features=self._job.features,
            realness=self.discriminator.as_it_is if self.discriminator is not None else None,
        )
        loss, parts = combined(sample, weights)
        if self._job.teacher is not None:
            loss = loss + recipe.distill_weight * self._distance(self._job.teacher, sample)
        errors = torch.full_like(loss.detach(), math.nan)
        if not unread:
            errors = (output.detach().clamp(0, 1) - high).square().mean(dim=(1, 2, 3))
        losses = StepLosses(loss.detach(), errors, parts)
        if any(by_name(name).discriminator for name in weights):
            assert self.discriminator is not None
            loss = loss + self.discriminator.loss(sample.output, high)
        return loss, losses

    def _reads_output(self, terms: Iterable[str]) -> bool:
        return self._job.teacher is not None or any(by_name(name).output for name in terms)

    def _distance(self, teacher: Network, sample: Sample) -> Tensor:
        """Charbonnier distance to the teacher's output for the same patch."""
        precision = precision_of(self._job.params)
        with torch.no_grad(), autocast(precision, sample.low.device):
            wanted: Tensor = teacher(sample.low)
        return charbonnier(sample.output, wanted.float(), eps=sample.eps)


@dataclass(frozen=True)
class StepOf:
    """Forward and backward over this worker's part of a batch."""

    context: Context
    accumulate: int
    model: nn.Module
    scaler: torch.amp.GradScaler

    def __call__(self, low: Tensor, high: Tensor, *, batch_size: int) -> StepLosses:
        """Compute the gradient of the mean loss over the global batch into the parameters."""
        lows, highs = low.chunk(self.accumulate), high.chunk(self.accumulate)
        # gradients are averaged over workers: this makes it the mean over the global batch
        weight = self.context.world_size / batch_size
        done = []
        for number, (x, y) in enumerate(zip(lows, highs, strict=True)):
            last = number + 1 == len(lows)
            with nullcontext() if last else self.context.no_sync(self.model):
                loss, losses = self.model(x, y)
                total = loss.sum() * weight
                # a loss that is not finite makes all gradients so, on every worker: they may be
                # finite without, where the loss is infinite
                torch.autograd.backward(self.scaler.scale(total * (1 + 0 * total.detach())))
            done.append(losses)
        return StepLosses.joined(done)


class Undo:
    """A copy of the state in a temporary folder, for a rollback without a restart."""

    def __init__(self, state: TrainState) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mirnet-undo-")
        state.save(Path(self._folder.name))

    def apply(self, state: TrainState) -> None:
        """Restore the state, with half the learning rate from now on."""
        scale, count = state.progress.lr_scale, state.progress.num_rollbacks
        state.load(Path(self._folder.name))
        state.progress.lr_scale = scale / 2
        state.progress.num_rollbacks = count + 1


def go_back(state: TrainState, undo: Undo | None, message: str) -> None:
    """After non-finite values: end the run, or return to the last checkpoint."""
    if undo is None or state.progress.num_rollbacks == MAX_ROLLBACKS:
        raise TrainingError(
            f"{message}. Lower train.lr, set train.grad_clip, or look at these pairs"
        )
    undo.apply(state)
    logger.warning("%s; back to step %d with half the learning rate", message, state.progress.step)


def end_epoch(context: Context, state: TrainState, meter: Meter, *, lr: float) -> EpochMetrics:
    """Validate, add the epoch to the history, and start the next."""
    job, done = state.job, state.progress.step
    epoch = done // job.steps_per_epoch - 1
    means = meter.means()
    metrics = EpochMetrics(
        epoch=epoch,
        step=done,
        lr=lr,
        train_loss=means.loss,
        train_psnr=None if math.isnan(means.psnr) else means.psnr,
        train_parts=means.parts,
        grad_norm=means.grad_norm,
        patches_per_s=means.patches / means.seconds,
        wait_share=means.waited_s / means.seconds,
    )
    recipe, last = job.params.train, done == job.total_steps
    if last or (epoch + 1) % recipe.validate_every == 0:
        sampled = samples.wanted(recipe, epoch=epoch, last=last)
        keep = samples.chosen(len(job.val), recipe.num_samples) if sampled else ()
        precision = precision_of(job.params)
        scores = validate(context, state.scored, job.val, precision=precision, keep=keep)
        metrics = metrics.model_copy(update=scores.means())
        context.emit(samples.images(epoch, job.val, scores.outputs))
    whole = meter.means()
    metrics = metrics.model_copy(
        update={"seconds": whole.seconds, "cpu_s": whole.cpu_s, "gpu_s": whole.gpu_s}
    )
    state.end_epoch(metrics)
    meter.reset()
    return metrics


def write_checkpoint(context: Context, state: TrainState) -> Path | None:
    """The state as a folder on rank 0, None elsewhere."""
    if context.rank != 0:
        return None
    folder = Path(tempfile.mkdtemp(prefix=f"{_SCRATCH}{os.getpid()}-"))
    try:
        state.save(folder)
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise StorageError(f"no checkpoint could be written to {folder.parent}: {error}") from error
    return folder


def sweep_scratch() -> None:
    """Remove temporary checkpoints of killed workers of this machine."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_SCRATCH}*-*"):
        owner = folder.name.removeprefix(_SCRATCH).partition("-")[0]
        # an hour: a process that cannot be seen from here may be alive in another container
        with suppress(FileNotFoundError):
            old = time.time() - folder.stat().st_mtime > _SCRATCH_KEPT_S
            if old and owner.isdigit() and not psutil.pid_exists(int(owner)):
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def memory_advice() -> Iterator[None]:
    """Converts an out-of-memory error of a GPU to one that names the params to lower."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "the GPU has too little memory: raise train.accumulate, or lower train.batch_size, "
            f"train.patch_size, or take a smaller model.name ({first_line(error)})"
        ) from error
