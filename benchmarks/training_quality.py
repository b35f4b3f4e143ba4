"""How good the models of presets get, and in what time, over seeds.

    python -m benchmarks.training_quality DATA [--presets cpu cpu-hour] [--seeds 0 1 2]

Runs `mirnet train` for each preset and seed, one after the other, in a folder of its own, and takes
the wall time of the whole command. The stored model is then scored on the validation pairs, whose
scenes are in no training pair, and on eval15 where the data have it; eval15 chooses nothing. Well
lit: references as inputs. A finished run is kept: the same command goes on after an interruption.
At the end table.md and curves.png show all runs of the folder; each run's scores.parquet has one
row per image (for benchmarks.gate_errors).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from benchmarks.leaderboard_rows import Record, save
from mirnet.config import apply_engine_defaults
from mirnet.data.loading import load_pairs
from mirnet.data.manifest import build_manifest
from mirnet.data.splits import split_pairs, val_stands_in
from mirnet.errors import MirnetError
from mirnet.evaluation.metrics import psnr, ssim
from mirnet.evaluation.niqe import niqe
from mirnet.evaluation.scoring import score_pairs
from mirnet.inference import Enhancer
from mirnet.models import load_model
from mirnet.params import Params, load_params
from mirnet.results import TrainResult

mpl.use("Agg")
import matplotlib.pyplot as plt

RUN, SCORES = "run.json", "scores.parquet"
_COLUMNS = {
    "plain": "psnr",
    "aligned": "gt_mean_psnr",
    "ssim": "ssim",
    "ciede2000": "ciede2000",
    "niqe": "niqe",
}


class Curve(Record):
    """Validation PSNR in dB by the minutes of training."""

    minutes: tuple[float, ...]
    psnr: tuple[float, ...]


class Run(Record):
    """One training.

    Attributes:
        minutes: wall time of the whole command.
        core_minutes: processor time of all steps and validations.
        scores: means over the images by split, and of well-lit images.
    """

    preset: str
    seed: int
    network: str
    parameters: int
    steps: int
    minutes: float
    core_minutes: float
    scores: dict[str, dict[str, float]]
    curve: Curve


def params_of(preset: str, seed: int, overrides: Sequence[str]) -> Params:
    return load_params(preset, overrides=(*overrides, f"train.seed={seed}"))


def train(
    data: Path,
    preset: str,
    overrides: Sequence[str],
    folder: Path,
    environment: Mapping[str, str] = os.environ,
) -> float:
    """Run `mirnet train` in the folder; its wall time in minutes.

    Raises:
        SystemExit: it failed; its output is in ``log.txt``.
    """
    command = [sys.executable, "-m", "mirnet.cli", "train", "--data", str(data.resolve())]
    for override in overrides:
        command += ["--set", override]
    command += ["--params", preset, "--out", "model"]
    environment = {**environment, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    started = time.perf_counter()
    with (folder / "log.txt").open("a", encoding="utf-8") as log:
        done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, env=environment)
    if done.returncode:
        raise SystemExit(f"{folder.name}: mirnet train failed, see {folder / 'log.txt'}")
    return (time.perf_counter() - started) / 60


def scored(data: Path, ids: Sequence[str], enhance: Enhancer, params: Params) -> pd.DataFrame:
    """One row per image, with NIQE."""
    pairs = [(i, low, high) for i, (low, high) in zip(ids, load_pairs(data, ids), strict=True)]
    outputs: dict[tuple[str, str], np.ndarray] = {}
    methods = {"mirnet": enhance}
    scores, _ = score_pairs(pairs, methods, params.evaluate, outputs=outputs)
    scores["niqe"] = [niqe(outputs[pair_id, "mirnet"]) for pair_id in scores["pair_id"]]
    return scores


def well_lit(data: Path, ids: Sequence[str], enhance: Enhancer) -> dict[str, float]:
    """PSNR in dB and SSIM of references as inputs, against themselves."""
    values = []
    for _, high in load_pairs(data, ids):
        output = enhance(high)
        values.append((psnr(output, high), ssim(output, high)))
    mean_psnr, mean_ssim = np.mean(values, axis=0)
    return {"psnr": float(mean_psnr), "ssim": float(mean_ssim)}


def measure(data: Path, preset: str, seed: int, overrides: Sequence[str], folder: Path) -> Run:
    """Train and score; the files of the run are in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    minutes = train(data, preset, (*overrides, f"train.seed={seed}"), folder)
    result = TrainResult.load(folder / "reports" / "train.json")
    params = params_of(preset, seed, overrides)
    roles = split_pairs(build_manifest(data), params.validation)
    enhance = Enhancer(load_model(folder / "model"))
    splits = {"val": roles["val"]} | ({} if val_stands_in(roles) else {"eval15": roles["eval"]})
    means = {}
    for split, ids in splits.items():
        scores = scored(data, ids, enhance, params)
        means[split] = {name: float(scores[column].mean()) for name, column in _COLUMNS.items()}
        if split == "val":
            scores.to_parquet(folder / SCORES)
    means["well lit"] = well_lit(data, roles["val"], enhance)
    elapsed = np.cumsum([epoch.seconds for epoch in result.history]) / 60
    points = [
        (float(at), epoch.val_psnr)
        for at, epoch in zip(elapsed, result.history, strict=True)
        if epoch.val_psnr is not None
    ]
    run = Run(
        preset=preset,
        seed=seed,
        network=result.model_name,
        parameters=result.num_parameters,
        steps=result.history[-1].step,
        minutes=minutes,
        core_minutes=sum(epoch.cpu_s for epoch in result.history) / 60,
        scores=means,
        curve=Curve(minutes=tuple(at for at, _ in points), psnr=tuple(db for _, db in points)),
    )
    save(run, folder / RUN)
    return run


def over_seeds(runs: Sequence[Run], split: str, name: str, form: str) -> str:
    """Mean, and the range over the seeds where there are several."""
    values = [run.scores[split][name] for run in runs if split in run.scores]
    if not values:
        return ""
    mean = format(float(np.mean(values)), form)
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):{form}} to {max(values):{form}})"


def table(runs: Sequence[Run]) -> str:
    """Markdown, one row per preset and split: means over the seeds with their range."""
    head = "preset", "network", "parameters", "minutes", "core minutes", "seeds", "images"
    names = "PSNR dB", "aligned PSNR dB", "SSIM", "CIEDE2000", "NIQE"
    lines = [f"| {' | '.join((*head, *names))} |", "| --- " * 3 + "| ---: " * 9 + "|"]
    forms = dict(zip(_COLUMNS, (".2f", ".2f", ".4f", ".2f", ".2f"), strict=True))
    for preset, group in groupby(sorted(runs, key=lambda run: run.preset), lambda run: run.preset):
        same = list(group)
        first = same[0]
        minutes = np.mean([(run.minutes, run.core_minutes) for run in same], axis=0)
        known = f"`{preset}` | `{first.network}` | {first.parameters:,} | "
        known += f"{minutes[0]:.1f} | {minutes[1]:.1f} | {len(same)}"
        for split in [split for split in ("val", "eval15") if split in first.scores]:
            cells = [over_seeds(same, split, name, form) for name, form in forms.items()]
            lines.append(f"| {known} | {split} | {' | '.join(cells)} |")
        cells = [over_seeds(same, "well lit", name, forms[name]) for name in ("ssim",)]
        level = over_seeds(same, "well lit", "psnr", ".2f")
        lines.append(f"| {known} | well lit | {level} | | {cells[0]} | | |")
    return "\n".join(lines) + "\n"


def draw(runs: Sequence[Run], target: Path) -> None:
    """Validation PSNR over the minutes, one line per run."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    colours = {preset: f"C{i}" for i, preset in enumerate(sorted({run.preset for run in runs}))}
    for run in runs:
        axes.plot(run.curve.minutes, run.curve.psnr, marker=".", color=colours[run.preset])
    for preset, colour in colours.items():
        axes.plot([], [], color=colour, label=preset)
    axes.set(xlabel="minutes of training", ylabel="PSNR of validation scenes, dB")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(target, dpi=110)
    plt.close(figure)


def finished(into: Path) -> list[Run]:
    paths = sorted(into.glob(f"*/{RUN}"))
    return [Run.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and show all."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--presets", nargs="+", default=["cpu"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", nargs="+", default=[], dest="overrides", help="section.key=value")
    parser.add_argument("--name", help="in the table, of one preset with --set; none: the preset")
    parser.add_argument("--into", type=Path, default=Path("reports/training-quality"))
    options = parser.parse_args(arguments)
    if options.overrides and not options.name:
        parser.error("--set needs a --name for the table")
    apply_engine_defaults()
    for preset in options.presets:
        for seed in options.seeds:
            folder = options.into.resolve() / f"{options.name or preset}-{seed}"
            if not (folder / RUN).is_file():
                print(f"{options.name or preset}, seed {seed}", flush=True)
                run = measure(options.data, preset, seed, options.overrides, folder)
                save(run.model_copy(update={"preset": options.name or preset}), folder / RUN)
    runs = finished(options.into)
    (options.into / "table.md").write_text(table(runs), encoding="utf-8")
    draw(runs, options.into / "curves.png")
    print(table(runs))


if __name__ == "__main__":
    try:
        main()
    except MirnetError as error:
        sys.exit(str(error))
