"""The job of a training run: everything a worker needs, identical for all workers."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from mirnet.models import Network
from mirnet.objectives.perceptual.features import VGG
from mirnet.params import Params
from mirnet.training.data.pairs import REPLAYED, PackedPairs
from mirnet.training.phases import Span, spans_of


@dataclass(frozen=True)
class Job:
    """A run's params and data.

    Attributes:
        train: of the data, then the replayed ones.
        initial: weights to start from in place of random ones.
        teacher: a larger network for distillation.
        features: the network of the perceptual term.
    """

    params: Params
    train: PackedPairs
    val: PackedPairs
    digest: str
    initial: dict[str, Tensor] | None = None
    teacher: Network | None = None
    features: VGG | None = None

    @cached_property
    def num_replayed(self) -> int:
        """Training pairs of an earlier data set, the last ones."""
        return sum(name.startswith(REPLAYED) for name in self.train.names)

    @property
    def num_pairs(self) -> int:
        """Training pairs without replayed ones."""
        return len(self.train) - self.num_replayed

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps per epoch."""
        recipe = self.params.train
        return recipe.steps_per_epoch or math.ceil(self.num_pairs / recipe.batch_size)

    @property
    def checkpoint_every(self) -> int:
        """Optimiser steps between checkpoints."""
        return self.params.train.checkpoint_every or self.steps_per_epoch

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps_per_epoch * self.params.train.num_epochs

    @cached_property
    def spans(self) -> tuple[Span, ...]:
        """The phases of the run, in order."""
        return spans_of(self.params, self.total_steps)

    def span_at(self, step: int) -> Span:
        """The phase of a step; the last one for those beyond the end."""
        return next((span for span in self.spans if step < span.stop), self.spans[-1])

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the loss terms of all phases."""
        return tuple(dict.fromkeys(name for span in self.spans for name in span.loss))


@dataclass(frozen=True)
class JobOutcome:
    """A finished run; ``checkpoint`` opens a local copy of its last checkpoint."""

    num_workers: int
    checkpoint_uri: str
    checkpoint: AbstractContextManager[Path | None]
