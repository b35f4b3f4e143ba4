"""What :mod:`benchmarks.new_camera` keeps of each run, its table and its curve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from pydantic import Field

from benchmarks.leaderboard_rows import Record
from mirnet.errors import DataError
from mirnet.evaluation.statistics import interval

mpl.use("Agg")
import matplotlib.pyplot as plt

RUN = "run.json"
LIMIT_DB = 0.2
"""Loss on the old camera that replay is to keep under."""
_COLUMNS = ("pairs", "replay", "steps", "minutes", "core minutes")
_PER_CAMERA = ("PSNR dB", "change", "aligned PSNR dB", "SSIM")


class Scores(Record):
    """One value per pair: PSNR in dB, PSNR after alignment of the brightness, SSIM."""

    psnr: tuple[float, ...]
    aligned: tuple[float, ...]
    ssim: tuple[float, ...]


class Run(Record):
    """One adaptation; the start has no pairs.

    Attributes:
        replay: share of replayed samples; none: without replay.
        start: SHA-256 of the weights of the start.
        overrides: ``--set`` of `mirnet train`.
        best_epoch: whose weights were kept, from 0.
        minutes: wall time of the whole command.
        core_minutes: processor time of all steps and validations.
        scores: by camera: ``camera`` and ``old``; empty: not scored yet.
    """

    pairs: int
    replay: float | None
    start: str
    overrides: tuple[str, ...] = ()
    steps: int = 0
    best_epoch: int = 0
    minutes: float = 0.0
    core_minutes: float = 0.0
    scores: dict[str, Scores] = Field(default_factory=dict)


def read_run(path: Path) -> Run:
    return Run.model_validate_json(path.read_text(encoding="utf-8"))


def finished(into: Path, scored: str) -> list[Run]:
    """Runs with scores in a file of that name, the start first."""
    runs = [read_run(path) for path in sorted(into.glob(f"*/{scored}"))]
    return sorted(runs, key=lambda run: (run.pairs, run.replay or 0.0))


def change(run: Run, start: Run, camera: str) -> tuple[float, float, float]:
    """Mean difference of PSNR over the same pairs in dB, and its 95 % interval.

    Raises:
        DataError: the two were scored on different numbers of pairs.
    """
    before, after = (np.array(one.scores[camera].psnr) for one in (start, run))
    if len(before) != len(after):
        raise DataError(f"{camera}: {len(before)} pairs of the start, {len(after)} of the run")
    differences = after - before
    return float(differences.mean()), *interval(differences, num_samples=2000, seed=0)


def table(runs: Sequence[Run]) -> str:
    """Markdown, one row per run: means over the pairs, and changes against the start."""
    start = runs[0]
    heads = [f"{camera}: {name}" for camera in ("new", "old") for name in _PER_CAMERA]
    lines = [f"| {' | '.join((*_COLUMNS, *heads))} |", "| ---: " * 13 + "|"]
    lines += [f"| {' | '.join(_cells(run, start))} |" for run in runs]
    return "\n".join(lines) + "\n"


def _cells(run: Run, start: Run) -> list[str]:
    cells = [str(run.pairs), f"{run.replay:g}" if run.replay else "", "", "", ""]
    if run.pairs:
        cells[2:] = str(run.steps), f"{run.minutes:.1f}", f"{run.core_minutes:.1f}"
    for camera in ("camera", "old"):
        scores = run.scores[camera]
        mean, low, high = change(run, start, camera)
        moved = f"{mean:+.2f} ({low:+.2f} to {high:+.2f})" if run.pairs else ""
        cells += [f"{np.mean(scores.psnr):.2f}", moved]
        cells += [f"{np.mean(scores.aligned):.2f}", f"{np.mean(scores.ssim):.4f}"]
    return cells


def draw(runs: Sequence[Run], target: Path) -> None:
    """Change of PSNR by the number of pairs: left on the new camera, right on the old one."""
    start = runs[0]
    figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
    ticks = [run.pairs for run in runs if not run.replay]
    for axis, camera, title in zip(
        axes, ("camera", "old"), ("the new camera", "the old camera"), strict=True
    ):
        for replay, label in ((False, "without replay"), (True, "with replay")):
            line = [run for run in runs if not run.pairs or bool(run.replay) == replay]
            points = [(np.log1p(run.pairs), *change(run, start, camera)) for run in line]
            at, mean, low, high = np.array(points).T
            axis.errorbar(at, mean, (mean - low, high - mean), marker="o", capsize=3, label=label)
        axis.set(xlabel="pairs of the new camera", title=title)
        axis.set_xticks(np.log1p(ticks), [str(tick) for tick in ticks])
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("change of PSNR, dB")
    axes[1].axhline(-LIMIT_DB, color="grey", linestyle="--", label=f"-{LIMIT_DB:g} dB")
    axes[1].legend()
    figure.savefig(target, dpi=100)
    plt.close(figure)
