"""What a search found: the winner, the Pareto front, and what a second seed keeps of the gain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import yaml
from pydantic import Field

from mirnet.atomic import write_atomically
from mirnet.results import Result
from mirnet.search.rows import DEFAULT, Plan, Trial

NUM_BEST = 3
"""Trials shown with images, besides the default."""


class SearchResult(Result):
    """Result of `mirnet search`."""

    command: ClassVar[str] = "mirnet search"
    name: str = Field(description="of the search, and of its parent run in MLflow")
    verdict: str
    minutes: float = Field(description="asked for")
    spent_minutes: float = Field(description="of all calls together")
    trials: dict[str, int] = Field(description="configurations by state")
    num_images: int = Field(description="validation images that trials were judged by")
    default_psnr: float | None = Field(description="dB, of the params as they are")
    winner: str | None = Field(description="what was drawn; none: no trial came to its end")
    winner_psnr: float | None = Field(description="dB")
    gain: float | None = Field(description="dB over the default, with the seed of the search")
    second_gain: float | None = Field(description="the same with another seed; none: not trained")
    kept: float | None = Field(description="second_gain over gain, if there is a gain")
    front: tuple[str, ...] = Field(description="Pareto front of PSNR and GMAC, cheapest first")
    preset: str | None = Field(description="params of the winner, for --params")
    page: str
    run_id: str | None = Field(description="parent run in MLflow")


@dataclass(frozen=True)
class Outcome:
    """Trials that came to their end, by their part.

    Attributes:
        ranked: with the seed of the search, the best first.
        again: the default and the winner with a second seed, as far as they came to their end.
    """

    ranked: tuple[Trial, ...]
    default: Trial | None
    again: dict[int, Trial]

    @classmethod
    def of(cls, trials: Sequence[Trial], plan: Plan) -> Outcome:
        done = [trial for trial in trials if trial.state == "done" and trial.psnr is not None]
        first = [trial for trial in done if trial.seed == plan.train_seed]
        return cls(
            ranked=tuple(sorted(first, key=lambda trial: -(trial.psnr or 0.0))),
            default=next((trial for trial in first if trial.number == DEFAULT), None),
            again={trial.number: trial for trial in done if trial.seed == plan.second_seed},
        )

    @property
    def winner(self) -> Trial | None:
        return self.ranked[0] if self.ranked else None

    @property
    def gain(self) -> float | None:
        """In dB, of the winner over the default."""
        return _difference(self.winner, self.default)

    @property
    def second_gain(self) -> float | None:
        """The same with the second seed; none if one of the two is missing."""
        if self.winner is None or self.winner.number == DEFAULT:
            return None
        return _difference(self.again.get(self.winner.number), self.again.get(DEFAULT))

    @property
    def kept(self) -> float | None:
        """Share of the gain that the second seed keeps."""
        if not self.gain or self.gain <= 0 or self.second_gain is None:
            return None
        return self.second_gain / self.gain

    def verdict(self) -> str:
        """In one or two sentences."""
        winner, default = self.winner, self.default
        if winner is None:
            return "No configuration was trained to its end: give more --minutes."
        if default is None:
            return (
                f"Best: {winner.title}, {winner.psnr:.2f} dB. The default was not trained to its "
                "end, so there is no gain to state: give more --minutes."
            )
        if winner.number == DEFAULT:
            return (
                f"Nothing better than the default was found ({default.psnr:.2f} dB; "
                f"{len(self.ranked) - 1} others came to their end)."
            )
        found = (
            f"Best: {winner.title}, {winner.psnr:.2f} dB, {self.gain:+.2f} dB over the default "
            f"({default.psnr:.2f} dB)."
        )
        if self.second_gain is None:
            return f"{found} Not confirmed: a second seed of both was not trained to its end."
        kept = "nothing" if (self.kept or 0) <= 0 else f"{100 * (self.kept or 0):.0f} %"
        return f"{found} A second seed keeps {kept} of the gain ({self.second_gain:+.2f} dB)."


def result_of(
    outcome: Outcome,
    trials: Sequence[Trial],
    plan: Plan,
    *,
    minutes: float,
    spent_minutes: float,
    preset: Path | None,
    page: Path,
    run_id: str | None,
) -> SearchResult:
    """The figures of an outcome; ``trials`` are all that were begun, of both seeds."""
    winner, default = outcome.winner, outcome.default
    return SearchResult(
        name=plan.name,
        verdict=outcome.verdict(),
        minutes=minutes,
        spent_minutes=spent_minutes,
        trials=_counted(trial.state for trial in trials if trial.seed == plan.train_seed),
        num_images=len(plan.val_ids),
        default_psnr=default.psnr if default else None,
        winner=winner.label if winner else None,
        winner_psnr=winner.psnr if winner else None,
        gain=outcome.gain,
        second_gain=outcome.second_gain,
        kept=outcome.kept,
        front=tuple(trial.title for trial in pareto_front(outcome.ranked, gmac)),
        preset=str(preset) if preset else None,
        page=str(page),
        run_id=run_id,
    )


def _counted(states: Iterable[str]) -> dict[str, int]:
    words = {"done": "trained to their end", "stopped": "stopped early", "failed": "not trained"}
    found = dict.fromkeys((*words.values(), "cut by the time"), 0)
    for state in states:
        found[words.get(state, "cut by the time")] += 1
    return found


def _difference(one: Trial | None, other: Trial | None) -> float | None:
    if one is None or other is None or one.psnr is None or other.psnr is None:
        return None
    return one.psnr - other.psnr


def pareto_front(
    trials: Sequence[Trial], cost: Callable[[Trial], float | None]
) -> tuple[Trial, ...]:
    """Trials that no other beats in PSNR at the same cost or less, cheapest first."""
    scored = [(c, trial) for trial in trials if (c := cost(trial)) is not None and trial.psnr]
    front: list[Trial] = []
    for _, trial in sorted(scored, key=lambda pair: (pair[0], -(pair[1].psnr or 0.0))):
        if not front or (trial.psnr or 0.0) > (front[-1].psnr or 0.0):
            front.append(trial)
    return tuple(front)


def gmac(trial: Trial) -> float | None:
    """Cost of inference that does not depend on the machine."""
    return trial.gmac or None


def seconds_per_megapixel(trial: Trial) -> float | None:
    return trial.seconds_per_megapixel


def write_preset(trial: Trial, plan: Plan, target: Path) -> Path:
    """The params of a trial as a file for ``--params``."""
    values = {"preset": plan.name} | {k: v for k, v in trial.values.items() if k != "preset"}
    head = (
        f"# {trial.title}\n"
        f"# Found by `mirnet search`: {trial.psnr:.2f} dB on {len(plan.val_ids)} validation images "
        f"after {trial.steps} steps.\n"
        "# For a longer training raise train.num_epochs.\n"
    )
    return write_atomically(target, head + yaml.safe_dump(values, sort_keys=False))
