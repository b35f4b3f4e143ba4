"""The phases of a run: which steps belong to which, and what is trained in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mirnet.params import Params, phase_loss


@dataclass(frozen=True)
class Span:
    """A phase of a run.

    Attributes:
        name: of the phase in the network's entry; none: the run has no phases.
        start, stop: its steps, ``stop`` not included.
        loss: weights of its loss terms.
        trains: prefixes of the names of the parameters that it changes.
        lr: factor of the learning rate.
    """

    name: str | None
    start: int
    stop: int
    loss: Mapping[str, float]
    trains: tuple[str, ...] = ("",)
    lr: float = 1.0


def spans_of(params: Params, total_steps: int) -> tuple[Span, ...]:
    """The phases of a run, in order.

    Each has at least one step; a run with fewer steps than phases leaves the first ones out.
    """
    recipe, entry = params.train, params.model.config.architecture
    if not recipe.phases:
        return (Span(None, 0, total_steps, recipe.loss),)
    ordered = [name for name in entry.phases if name in recipe.phases][-max(total_steps, 1) :]
    whole = sum(recipe.phases[name] for name in ordered)
    spans, start, share = [], 0, 0.0
    for left, name in zip(reversed(range(len(ordered))), ordered, strict=True):
        share += recipe.phases[name] / whole
        stop = max(start + 1, min(round(share * total_steps), total_steps - left))
        phase = entry.phases[name]
        loss = phase_loss(phase, recipe.loss)
        spans.append(Span(name, start, stop, loss, phase.trains, phase.lr))
        start = stop
    return tuple(spans)
