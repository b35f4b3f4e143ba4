"""The request of a training run, and the listener of its events."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mirnet.config import Settings
from mirnet.params import Params
from mirnet.results import EpochMetrics, LogLine, NodeUsage, SampleImage

logger = logging.getLogger(__name__)

TrainingEvent = NodeUsage | SampleImage


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A training run.

    The same ``run_name`` on the same checkpoint store resumes an earlier run.
    ``settings.ray_address`` selects the backend: this process, a local Ray instance, or a cluster.

    Attributes:
        root: data set in the LoL layout.
        train_ids, val_ids: pair ids such as ``our485/1.png``; they must not overlap.
        digest: version of the data, stored in the result and in the checkpoints.
        model_dir: folder for the best model by validation PSNR.
        mlflow_run_id: copied to the result.
        init_from: weights to start from, of the same architecture: a model folder or a published
            checkpoint. Ignored when the run already has a checkpoint.
        distill_from: a teacher model for distillation, usually larger.
        replay_ids: pairs of the folder of ``train.replay``, if there is one.
        replay_digest: version of those data.
    """

    root: Path
    train_ids: Sequence[str]
    val_ids: Sequence[str]
    params: Params
    settings: Settings
    digest: str
    run_name: str
    model_dir: Path
    mlflow_run_id: str | None = None
    init_from: Path | None = None
    distill_from: Path | None = None
    replay_ids: Sequence[str] = ()
    replay_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class Listener:
    """Callbacks of a run. Separate functions, since only ``on_epoch`` is sent to another process.

    Attributes:
        on_epoch: called once per epoch, in the process that controls training (on a Ray cluster
            that is not the caller's); must pickle.
        on_progress: as ``on_epoch``, in the caller's process.
        on_event: sample images and the usage of nodes, in the caller's process.
    """

    on_epoch: Callable[[EpochMetrics], None] | None = None
    on_progress: Callable[[EpochMetrics], None] | None = None
    on_event: Callable[[TrainingEvent], None] | None = None

    def hear(self, event: EpochMetrics | LogLine | TrainingEvent) -> None:
        """Pass on what a worker or a cluster sent to the caller's process; log lines are logged."""
        if isinstance(event, LogLine):
            logger.log(event.level, "%s", event.message)
        elif isinstance(event, EpochMetrics):
            if self.on_progress is not None:
                self.on_progress(event)
        elif self.on_event is not None:
            self.on_event(event)


class LogForwarder(logging.Handler):
    """Sends log records as events to where a :class:`Listener` hears them."""

    def __init__(self, send: Callable[[LogLine], object]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        self._send(LogLine(level=record.levelno, message=record.getMessage()))
