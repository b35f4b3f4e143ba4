"""What a search keeps in its folder: one plan, and one file for each trial."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from mirnet.atomic import write_atomically
from mirnet.errors import UsageError, problem_of
from mirnet.params import Params
from mirnet.search.space import SearchSpace

EPOCHS = 4
"""Validations of a trial; after each but the last the weaker ones are stopped."""
DEFAULT = 0
"""Number of the trial of the params as they are."""
State = Literal["running", "done", "stopped", "failed"]


class Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Plan(Record):
    """What is equal for all trials of a folder.

    Attributes:
        name: of the search; those of its training runs begin with it.
        base: the params as they are, as values.
        trial_s: seconds that a trial may take, its measuring included.
        train_ids, val_ids: pairs to train on, and of other scenes to judge by; never of eval15.
    """

    name: str
    digest: str
    base: dict[str, Any]
    space: SearchSpace
    seed: int
    threads: int
    trial_s: float
    train_ids: tuple[str, ...]
    val_ids: tuple[str, ...]

    @property
    def params(self) -> Params:
        return Params.model_validate(self.base)

    @property
    def train_seed(self) -> int:
        """``train.seed`` of all trials."""
        return self.params.train.seed

    @property
    def second_seed(self) -> int:
        """``train.seed`` of the repetition of default and winner."""
        return self.train_seed + 1

    def check(self, other: Plan) -> None:
        """Refuse to mix trials: UsageError names what differs."""
        for key, option in _ASKED.items():
            if getattr(self, key) != getattr(other, key):
                raise UsageError(
                    f"{option}: the trials in the folder were made with another; name another "
                    "--into"
                )


_ASKED = {
    "digest": "data",
    "base": "--params or --set",
    "space": "--space or --network",
    "seed": "--seed",
    "threads": "--threads",
}


class Point(Record):
    """A validation: means over the validation pairs, PSNR in dB."""

    epoch: int
    psnr: float
    ssim: float


class Trial(Record):
    """One configuration, trained with one seed.

    Attributes:
        number: of the configuration.
        seed: of the training (``train.seed``).
        label: what was drawn.
        values: the params that it is trained with.
        state: running also if it was interrupted; stopped early, as others were better.
        reason: why it failed.
        gmac: 1e9 multiply-adds of a 400x600 image.
        seconds_per_megapixel: of inference with the threads of a trial, beside other trials.
        seconds: wall clock of its training.
        run_id: in MLflow.
    """

    number: int
    seed: int
    label: str
    values: dict[str, Any]
    state: State = "running"
    reason: str | None = None
    parameters: int = 0
    gmac: float = 0.0
    seconds_per_megapixel: float | None = None
    steps: int | None = None
    points: tuple[Point, ...] = ()
    seconds: float = 0.0
    run_id: str | None = None

    @property
    def params(self) -> Params:
        return Params.model_validate(self.values)

    @property
    def key(self) -> str:
        """Fit for a file and the end of a run name."""
        return f"trial-{self.number:03d}-seed{self.seed}"

    @property
    def best(self) -> Point | None:
        """The best validation, whose weights are kept, as in ``mirnet train``."""
        return max(self.points, key=lambda point: point.psnr, default=None)

    @property
    def psnr(self) -> float | None:
        """Of the best validation, in dB."""
        return self.best.psnr if self.best else None

    @property
    def title(self) -> str:
        return f"{self.number}: {self.label}"


class Progress(Record):
    """The time that was spent, over all calls of the command."""

    minutes: float = Field(gt=0, description="what was asked for last")
    spent_s: float = 0.0


class Rows:
    """The files of a search."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self) -> Plan | None:
        """None before the first call.

        Raises:
            UsageError: the file is not a plan of this version.
        """
        path = self.folder / "plan.json"
        return _read(path, Plan) if path.is_file() else None

    def progress(self) -> Progress | None:
        path = self.folder / "progress.json"
        return _read(path, Progress) if path.is_file() else None

    def trials(self) -> dict[str, Trial]:
        """All trials that were begun, by key."""
        found = (_read(path, Trial) for path in sorted(self.folder.glob("trials/*.json")))
        return {trial.key: trial for trial in found}

    def save(self, record: Plan | Progress | Trial) -> None:
        if isinstance(record, Trial):
            path = self.folder / "trials" / f"{record.key}.json"
        else:
            path = self.folder / ("plan.json" if isinstance(record, Plan) else "progress.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, record.model_dump_json(indent=2) + "\n")


T = TypeVar("T", bound=Record)


def _read(path: Path, kind: type[T]) -> T:
    try:
        return kind.model_validate_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{path}: not of this version: {problem_of(error)}") from error
