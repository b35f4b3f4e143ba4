"""Learning rates by step; only the plateau schedule has state."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from mirnet.params import TrainParams
from mirnet.training.phases import Span

# MIRNet-v2, section 4.2: 92 of 300 thousand steps at the initial rate, then half a cosine
_FLAT = 92 / 300


class Schedule:
    """Learning rate of every step of a run, warm-up first; each phase has a schedule of its own."""

    def __init__(self, params: TrainParams, spans: Sequence[Span]) -> None:
        self._params = params
        self._floor = min(params.min_lr, params.lr)
        self._spans = spans
        # ReduceLROnPlateau needs an optimiser: this one has only the learning rate.
        self._holder = torch.optim.SGD([torch.zeros(1)], lr=params.lr)
        self._plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            self._holder,
            mode="max",
            factor=params.plateau_factor,
            patience=params.plateau_patience,
            min_lr=self._floor,
        )

    def lr(self, step: int) -> float:
        """The rate of the given step, counted from 0."""
        span = next((span for span in self._spans if step < span.stop), self._spans[-1])
        return span.lr * self._within(step - span.start, total_steps=span.stop - span.start)

    def _within(self, step: int, *, total_steps: int) -> float:
        params = self._params
        if step < params.warmup_steps:
            return params.lr * (step + 1) / params.warmup_steps
        if params.schedule == "plateau":
            return float(self._holder.param_groups[0]["lr"])
        done = (step - params.warmup_steps) / max(1, total_steps - params.warmup_steps)
        if params.schedule == "cosine":
            return cosine(params.lr, self._floor, done)
        if params.schedule == "two-cycle":
            return cosine(params.lr, self._floor, max(0.0, (done - _FLAT) / (1 - _FLAT)))
        return params.lr

    def validated(self, val_psnr: float) -> None:
        """Tell the plateau schedule the validation PSNR of an epoch."""
        if self._params.schedule == "plateau":
            self._plateau.step(val_psnr)

    def state_dict(self) -> dict[str, Any]:
        """State for a resumed run: plain numbers."""
        plateau = self._plateau
        return {
            "lr": self._holder.param_groups[0]["lr"],
            "best": plateau.best,
            "num_bad_epochs": plateau.num_bad_epochs,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._holder.param_groups[0]["lr"] = state["lr"]
        self._plateau.best = state["best"]
        self._plateau.num_bad_epochs = state["num_bad_epochs"]


def cosine(start: float, end: float, done: float) -> float:
    """Half a cosine from ``start`` to ``end``; ``done`` runs from 0 to 1."""
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
