"""The state of a run as a folder: tensors in safetensors, numbers in JSON, no pickle.

=========================  ==================================================
``weights.safetensors``    the network being trained
``optimizer.pt``           the optimiser, read with ``weights_only=True``
``progress.json``          step, history, schedule, best so far, fingerprint
``best/``                  the best network by validation PSNR, project format
=========================  ==================================================

Sampling needs no state: it is a function of the seed and the step.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirnet.config import Params
from mirnet.errors import TrainingError
from mirnet.models import build, save_model
from mirnet.results import EpochMetrics
from mirnet.training.schedules import Schedule

BEST = "best"
_WEIGHTS, _OPTIMIZER, _PROGRESS = "weights.safetensors", "optimizer.pt", "progress.json"


class Progress(BaseModel):
    """Where a run stands, as it lies in ``progress.json``."""

    model_config = ConfigDict(extra="forbid")

    fingerprint: dict[str, Any] = Field(description="what a resumed run must share")
    step: int = 0
    history: list[EpochMetrics] = []
    best_epoch: int = -1
    best_val_psnr: float = float("-inf")
    schedule: dict[str, Any] = {}
    sums: list[float] = Field(default=[], description="running sums of a begun epoch")

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")


def fingerprint(params: Params, digest: str, train_ids: tuple[str, ...]) -> dict[str, Any]:
    """What must be equal for a run to go on: recipe, network, data version and pairs."""
    return {
        "digest": digest,
        "num_train": len(train_ids),
        **{f"model.{key}": value for key, value in params.model.model_dump(mode="json").items()},
        **{f"train.{key}": value for key, value in params.train.model_dump(mode="json").items()},
    }


@dataclass
class TrainState:
    """All that training changes."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    progress: Progress
    best: dict[str, Tensor] = field(default_factory=dict)

    def keep_if_best(self, metrics: EpochMetrics) -> None:
        """Copy the weights when the epoch's validation PSNR is the highest so far."""
        if metrics.val_psnr is None or metrics.val_psnr <= self.progress.best_val_psnr:
            return
        self.progress.best_val_psnr = metrics.val_psnr
        self.progress.best_epoch = metrics.epoch
        self.best = _copy(self.model)

    def save(self, folder: Path, params: Params) -> None:
        """Write everything into an empty folder."""
        self.progress.schedule = self.schedule.state_dict()
        save_file(_copy(self.model), folder / _WEIGHTS)
        torch.save(self.optimizer.state_dict(), folder / _OPTIMIZER)
        (folder / _PROGRESS).write_text(self.progress.model_dump_json(), encoding="utf-8")
        if self.best:
            best = build(params.model)
            best.load_state_dict(self.best)
            save_model(best, folder / BEST)

    def load(self, folder: Path) -> None:
        """Go back to what :meth:`save` wrote.

        Raises:
            TrainingError: the folder belongs to another recipe; names what differs.
        """
        progress = read_progress(folder)
        _check_same_run(progress.fingerprint, self.progress.fingerprint)
        self.model.load_state_dict(load_file(folder / _WEIGHTS))
        self.optimizer.load_state_dict(torch.load(folder / _OPTIMIZER, weights_only=True))
        self.schedule.load_state_dict(progress.schedule)
        self.progress = progress
        if (folder / BEST / _WEIGHTS).is_file():
            self.best = load_file(folder / BEST / _WEIGHTS)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    """Contiguous copies on the CPU; shared parameters are copied under each of their names."""
    return {
        key: value.detach().to("cpu", memory_format=torch.contiguous_format, copy=True)
        for key, value in model.state_dict().items()
    }


def read_progress(folder: Path) -> Progress:
    """Where the run of a checkpoint folder stands.

    Raises:
        TrainingError: the folder holds no checkpoint of ours.
    """
    try:
        return Progress.model_validate_json((folder / _PROGRESS).read_bytes())
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise TrainingError(f"{folder} is not a training checkpoint: {reason}") from error


def _check_same_run(saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    wanted = json.loads(json.dumps(wanted))
    for key in sorted(saved.keys() | wanted.keys()):
        if saved.get(key) != wanted.get(key):
            raise TrainingError(
                f"this run was started with {key} {saved.get(key)!r}, not {wanted.get(key)!r}: "
                "take another run name, or the same params and data"
            )
