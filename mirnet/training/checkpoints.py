"""The state of a run, saved as a folder and loaded without pickle.

=========================  ==================================================
``weights.safetensors``    the network being trained, with parts of training
``ema.safetensors``        the moving average of its weights, if there is one
``discriminator...``       the discriminator of the adversarial term, if there is one
``optimizer.pt``           the optimiser of both, read with ``weights_only=True``
``progress.json``          step, history, schedule, best so far, fingerprint
``best/``                  the best network by validation PSNR, project format
=========================  ==================================================

Sampling needs no state: it is a function of the seed and the step.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mirnet.errors import TrainingError, first_line
from mirnet.models import Network, load_model, save_model
from mirnet.objectives.adversarial.discriminator import PatchDiscriminator
from mirnet.objectives.registry import by_name
from mirnet.results import EpochMetrics
from mirnet.training.job import Job
from mirnet.training.phases import Span
from mirnet.training.schedules import Schedule

logger = logging.getLogger(__name__)

BEST = "best"
_WEIGHTS, _EMA = "weights.safetensors", "ema.safetensors"
_DISCRIMINATOR = "discriminator.safetensors"
_OPTIMIZER, _PROGRESS = "optimizer.pt", "progress.json"
# params that may differ in a resumed run: they do not affect weights
_FREE = {"samples_every", "num_samples", "checkpoint_every", "early_stop"}
_OPTIMIZERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


class TrainingProgress(BaseModel):
    """Progress of a run, the content of ``progress.json``."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    fingerprint: dict[str, Any] = Field(description="identity that a resumed run must match")
    step: int = 0
    history: list[EpochMetrics] = []
    best_epoch: int = -1
    best_val_psnr: float = float("-inf")
    since_best: int = Field(0, description="validated epochs since the best one")
    schedule: dict[str, Any] = {}
    lr_scale: float = Field(1.0, description="halved by each rollback")
    num_rollbacks: int = 0
    ema_updates: int = 0
    sums: list[float] = Field([], description="running sums and clocks of an unfinished epoch")
    scaler: dict[str, Any] = Field({}, description="loss scaler of fp16")


def fingerprint(job: Job) -> dict[str, Any]:
    """Identity required to resume a run: recipe, network, data version and pairs."""
    sections = {"model": job.params.model, "train": job.params.train}
    flat = {
        f"{section}.{key}": value
        for section, values in sections.items()
        for key, value in values.model_dump(mode="json").items()
        if key not in _FREE
    }
    names = json.dumps([job.train.names, job.val.names])
    pairs = hashlib.sha256(names.encode()).hexdigest()[:16]
    identity = {"digest": job.digest, "pairs": pairs, **flat}
    if job.features is not None:
        identity["weights of the perceptual term"] = _digest(job.features)
    return identity


def _digest(network: nn.Module) -> str:
    values = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        values.update(name.encode() + value.cpu().numpy().tobytes())
    return values.hexdigest()[:16]


@dataclass
class TrainState:
    job: Job
    model: Network
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: AveragedModel | None
    scaler: torch.amp.GradScaler
    progress: TrainingProgress
    discriminator: PatchDiscriminator | None = None
    best: dict[str, Tensor] = field(default_factory=dict)
    _statistics: list[Tensor] = field(default_factory=list)

    @classmethod
    def start(cls, job: Job, device: torch.device) -> TrainState:
        """A run at step 0, equal on all workers."""
        recipe = job.params.train
        torch.manual_seed(recipe.seed)
        model = job.params.model.config.build()
        if job.initial is not None:
            model.load_state_dict(job.initial)
        model.add_training_parts(recipe.phases or ())
        model = on_device(model, device)
        groups: list[dict[str, Any]] = [{"params": list(model.parameters())}]
        discriminator = None
        if any(by_name(name).discriminator for name in job.terms):
            discriminator = PatchDiscriminator().to(device)
            groups.append({"params": list(discriminator.parameters())})
        optimizer = _OPTIMIZERS[recipe.optimizer](
            groups, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
        ema = _average(model, recipe.ema_decay) if recipe.ema_decay else None
        schedule = Schedule(recipe, job.spans)
        scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
        progress = TrainingProgress(fingerprint=fingerprint(job))
        return cls(job, model, optimizer, schedule, ema, scaler, progress, discriminator)

    @property
    def scored(self) -> Network:
        """The network that is validated and exported."""
        return self.model if self.ema is None else cast(Network, self.ema.module)

    @property
    def finished(self) -> bool:
        """Whether the last step is done, or early stopping applies."""
        patience = self.job.params.train.early_stop
        stalled = patience is not None and self.progress.since_best >= patience
        return stalled or self.progress.step >= self.job.total_steps

    @property
    def span(self) -> Span:
        """The phase of the next step."""
        return self.job.span_at(self.progress.step)

    def start_step(self) -> float:
        """Set phase and learning rate of the next step, and keep what a repetition of it needs."""
        if self.scaler.is_enabled() and self.model.architecture.batch_statistics:
            self._statistics = [buffer.clone() for buffer in self.model.buffers()]
        span = self.span
        if span.name != self.model.phase:
            logger.info("phase %s begins or goes on at step %d", span.name, self.progress.step)
        self.model.phase = span.name
        lr = self.schedule.lr(self.progress.step) * self.progress.lr_scale
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        return lr

    def clip(self) -> Tensor:
        """Unscale and clip the gradients of what the phase trains; their norm before clipping.

        A discriminator is clipped by itself; its norm is returned only if it is not finite.
        """
        trains = self.span.trains
        for name, parameter in self.model.named_parameters():
            if not name.startswith(trains):
                parameter.grad = None
        self.scaler.unscale_(self.optimizer)
        limit = self.job.params.train.grad_clip or math.inf
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        if self.discriminator is None:
            return norm
        other = nn.utils.clip_grad_norm_(self.discriminator.parameters(), limit)
        return torch.where(other.isfinite(), norm, other)

    def lower_scale(self) -> bool:
        """After non-finite gradients: halve the loss scale of fp16, if possible.

        Running statistics are those from before the step, whose batch will be repeated.
        """
        self.optimizer.zero_grad()
        for buffer, before in zip(self.model.buffers(), self._statistics, strict=False):
            buffer.copy_(before)
        scale = self.scaler.get_scale()
        if not self.scaler.is_enabled() or scale <= 1:
            return False
        self.scaler.update(scale / 2)
        return True

    def update(self) -> None:
        """One optimiser step with the present gradients."""
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.progress.step += 1
        if self.ema is not None:
            self.ema.update_parameters(self.model)

    def end_epoch(self, metrics: EpochMetrics) -> None:
        """Add an epoch to the history; keep the weights if it is the best so far.

        Scores before the last phase choose nothing: the network is unfinished until then.
        """
        self.progress.history.append(metrics)
        last = self.job.span_at(metrics.step - 1) is self.job.spans[-1]
        if metrics.val_psnr is None or not last:
            return
        self.schedule.validated(metrics.val_psnr)
        self.progress.since_best += 1
        if metrics.val_psnr > self.progress.best_val_psnr:
            self.progress.best_val_psnr = metrics.val_psnr
            self.progress.best_epoch = metrics.epoch
            self.progress.since_best = 0
            self.best = copy_weights(self.scored)

    def save(self, folder: Path) -> None:
        """Write everything into an empty folder."""
        self.progress.schedule = self.schedule.state_dict()
        self.progress.scaler = self.scaler.state_dict()
        save_file(copy_weights(self.model), folder / _WEIGHTS)
        if self.ema is not None:
            self.progress.ema_updates = int(self.ema.n_averaged)
            save_file(copy_weights(self.ema.module), folder / _EMA)
        if self.discriminator is not None:
            save_file(copy_weights(self.discriminator), folder / _DISCRIMINATOR)
        torch.save(self.optimizer.state_dict(), folder / _OPTIMIZER)
        (folder / _PROGRESS).write_text(self.progress.model_dump_json(), encoding="utf-8")
        if self.best:
            best = self.model.config.build()  # without parts of training
            best.load_state_dict({name: self.best[name] for name in best.state_dict()})
            save_model(best, folder / BEST)

    def load(self, folder: Path) -> None:
        """Restore the state written by :meth:`save`.

        Raises:
            TrainingError: the folder belongs to another recipe, or is damaged; names what.
        """
        progress = read_progress(folder)
        _check_same_run(progress.fingerprint, self.progress.fingerprint)
        try:
            self._load_tensors(folder, progress)
        except (OSError, EOFError, RuntimeError, SafetensorError, UnpicklingError) as error:
            reason = first_line(error)
            raise TrainingError(f"the checkpoint in {folder} is damaged: {reason}") from error
        self.schedule.load_state_dict(progress.schedule)
        self.scaler.load_state_dict(progress.scaler)
        self.progress = progress

    def _load_tensors(self, folder: Path, progress: TrainingProgress) -> None:
        self.model.load_state_dict(load_file(folder / _WEIGHTS))
        if self.ema is not None:
            self.ema.module.load_state_dict(load_file(folder / _EMA))
            self.ema.n_averaged.fill_(progress.ema_updates)
        if self.discriminator is not None:
            self.discriminator.load_state_dict(load_file(folder / _DISCRIMINATOR))
        self.optimizer.load_state_dict(torch.load(folder / _OPTIMIZER, weights_only=True))
        if (folder / BEST).is_dir():
            self.best = copy_weights(load_model(folder / BEST))


def on_device(model: Network, device: torch.device) -> Network:
    """The network on the device, in channels_last layout."""
    moved: Network = model.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """The exponential moving average of a network's weights; the first update copies them.

    Running statistics are averaged, too: those of the trained weights belong to other weights.
    """
    average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
    return AveragedModel(model, multi_avg_fn=average, use_buffers=True)


def copy_weights(model: nn.Module) -> dict[str, Tensor]:
    """Contiguous copies on the CPU; shared parameters are copied under each of their names."""
    return {
        key: value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for key, value in model.state_dict().items()
    }


def read_progress(folder: Path) -> TrainingProgress:
    """The progress of the run of a checkpoint folder.

    Raises:
        TrainingError: the folder is not a checkpoint.
    """
    try:
        return TrainingProgress.model_validate_json((folder / _PROGRESS).read_bytes())
    except (OSError, ValueError) as error:
        reason = first_line(error)
        raise TrainingError(f"{folder} is not a training checkpoint: {reason}") from error


def _check_same_run(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    for key in sorted(saved.keys() | wanted.keys()):
        if saved.get(key) != wanted.get(key):
            raise TrainingError(
                f"this run was started with {key} {saved.get(key)!r}, not {wanted.get(key)!r}: "
                "take another run name, or the same params and data"
            )
