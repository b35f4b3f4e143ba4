"""The interface between the loop and its environment, and its implementation in one process."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mirnet.results import EpochMetrics
from mirnet.training.request import Listener, TrainingEvent
from mirnet.training.store import CheckpointStore


class Context(Protocol):
    """A run from the perspective of one worker."""

    rank: int
    local_rank: int
    world_size: int
    node: str
    device: torch.device

    def wrap(self, model: nn.Module, *, partial: bool = False) -> nn.Module:
        """The model with gradients averaged over the workers.

        Args:
            partial: whether a pass may leave parameters without a gradient.
        """

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:
        """A block in which gradients of a wrapped model are accumulated locally."""

    def sum(self, values: Tensor) -> Tensor:
        """Elementwise sum over the workers, in place."""

    def restored(self) -> AbstractContextManager[Path | None]:
        """The folder of the last checkpoint of this run, if there is one."""

    def report(self, metrics: EpochMetrics | None, checkpoint: Path | None) -> None:
        """Publish an epoch and keep a checkpoint; a barrier.

        Rank 0 gives the checkpoint folder, which then belongs to the context.
        """

    def emit(self, events: Sequence[TrainingEvent]) -> None:
        """Send images and metrics of this worker to the run's listener; no barrier."""


class InProcess:
    """One worker, no Ray."""

    rank = 0
    local_rank = 0
    world_size = 1

    def __init__(
        self,
        store: CheckpointStore,
        listener: Listener = Listener(),
    ) -> None:
        self.node = socket.gethostname()
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._store = store
        self._listener = listener

    def wrap(self, model: nn.Module, *, partial: bool = False) -> nn.Module:  # noqa: ARG002
        return model

    def no_sync(self, wrapped: nn.Module) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()

    def sum(self, values: Tensor) -> Tensor:
        return values

    @contextmanager
    def restored(self) -> Iterator[Path | None]:
        with self._store.latest() as folder:
            yield folder

    def report(self, metrics: EpochMetrics | None, checkpoint: Path | None) -> None:
        if checkpoint is not None:
            self._store.put(checkpoint)
        if metrics is None:
            return
        if self._listener.on_epoch is not None:
            self._listener.on_epoch(metrics)
        self._listener.hear(metrics)

    def emit(self, events: Sequence[TrainingEvent]) -> None:
        for event in events:
            self._listener.hear(event)
