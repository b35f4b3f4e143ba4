"""How fast a model learns another camera from a few pairs, and what it forgets of the old one.

    python -m benchmarks.new_camera PHOTOGRAPHS --start MODEL [--old OLD_DATA] [--pairs 3 10 30]

Makes a camera of its own (:data:`CAMERA`), adapts the start to 3, 10 and 30 of its pairs with
`mirnet train`, each without and with `train.replay` of the old data, and scores all of them on test
pairs of the new camera and on eval15 of the old data. Test pairs are of the photographs of that
eval15, which nothing was trained on; pairs for the adaptation are of other photographs.

PHOTOGRAPHS: the folder that ``python -m benchmarks.photographs`` assembles. OLD_DATA: the pairs
that the start was trained on, made from the same photographs; none: wide ones, made first. --choose
scores on pairs that are kept for choosing the recipe, not on test pairs. A finished run is kept:
the same command goes on after an interruption. At the end table.md and
curve.png show all runs of the folder.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.leaderboard_rows import save
from benchmarks.new_camera_results import (
    RUN,
    Run,
    Scores,
    draw,
    finished,
    read_run,
    table,
)
from benchmarks.training_quality import train
from mirnet.config import apply_engine_defaults
from mirnet.data.degradation import WIDE, DegradationRanges
from mirnet.data.layout import EVAL_SPLIT, PAIRS_TABLE, TRAIN_SPLIT, find_pairs
from mirnet.data.loading import load_pairs
from mirnet.data.samples import make_from_photographs
from mirnet.data.synthesis import Shot, synthesize
from mirnet.errors import DataError, MirnetError, UsageError
from mirnet.evaluation import scoring
from mirnet.inference import Enhancer
from mirnet.results import TrainResult
from mirnet.stages.models import open_model
from mirnet.stages.run import load_run_config
from mirnet.training import IN_PROCESS

CAMERA = DegradationRanges(
    exposure=(0.08, 0.2),
    gamma=(2.2, 2.2),
    shot_noise=(0.004, 0.004),
    red_gain=(2.9, 2.9),
    blue_gain=(1.2, 1.2),
    white_balance_jitter=0.0,
    mired_shift=(-150.0, -150.0),
    tone=(1.15, 1.15),
)
"""One sensor in one light: gains, cast and tone curve are fixed, outside of :data:`WIDE`. Its noise
is fixed and in the upper part of WIDE; with more than there no image is left."""
CAMERA_SEED = 7
SEED, PER_PHOTO, SIDE = 1, 12, 384
"""Of the old pairs, where none are given."""
NUM_CHOOSING = 12
"""Photographs for choosing the recipe."""
PER_JUDGED = 3
"""Pairs of each photograph that scores are taken on."""
NUM_OLD = 60
"""Pairs of the old data that scores are taken on."""
RECIPE = (
    "train.lr=0.0005",
    "train.num_epochs=3",
    "train.steps_per_epoch=100",
    "train.progressive=[]",
    "train.ema_decay=0.98",
    "train.validate_every=1",
)
"""Of every adaptation, beside the preset `cpu`, the start and replay."""
SHARE = 0.5


@dataclass(frozen=True)
class Roles:
    """Names of photographs by what the pairs of the new camera are for."""

    adapt: tuple[str, ...]
    choose: tuple[str, ...]
    test: tuple[str, ...]


@dataclass(frozen=True)
class Judged:
    """Pairs that scores are taken on."""

    camera: tuple[Path, tuple[str, ...]]
    old: tuple[Path, tuple[str, ...]]


def roles_of(old: Path, num_pairs: int) -> Roles:
    """Photographs of eval15 are for the test, random other ones for adapting and choosing.

    Raises:
        DataError: the old data do not name the photographs of their pairs, or have too few.
    """
    if not (old / PAIRS_TABLE).is_file():
        raise DataError(f"{old}: no {PAIRS_TABLE}, which names the photograph of each pair")
    pairs = pd.read_csv(old / PAIRS_TABLE, usecols=["pair", "source"], dtype=str)
    judged = pairs["pair"].str.startswith(f"{EVAL_SPLIT}/")
    test = sorted(set(pairs["source"][judged]))
    others = sorted(set(pairs["source"][~judged]) - set(test))
    needed = num_pairs + NUM_CHOOSING
    if not test or len(others) < needed:
        raise DataError(
            f"{old}: {len(test)} photographs in {EVAL_SPLIT} and {len(others)} others; "
            f"1 and {needed} are needed"
        )
    order = np.random.default_rng(CAMERA_SEED).permutation(len(others))
    shuffled = [others[i] for i in order]
    return Roles(tuple(shuffled[:num_pairs]), tuple(shuffled[num_pairs:needed]), tuple(test))


def shots_of(
    photographs: Path, names: Sequence[str], split: str, *, per_photo: int = 1
) -> list[Shot]:
    """The same photograph gives the same pairs, whatever others there are."""
    return [
        Shot(f"{split}/{name}-{turn + 1}.png", name, photographs / name, SIDE)
        for name in names
        for turn in range(per_photo)
    ]


def make_pairs(shots: Sequence[Shot], folder: Path) -> Path:
    """Pairs of the new camera, once, as a whole."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".making-") as scratch:
        made = Path(scratch) / folder.name
        synthesize(shots, made, seed=CAMERA_SEED, ranges=CAMERA)
        made.replace(folder)
    return folder


def old_pairs(old: Path, *, choose: bool) -> tuple[str, ...]:
    """Some of eval15, evenly spaced; for choosing, of the training pairs."""
    split = TRAIN_SPLIT if choose else EVAL_SPLIT
    ids = [pair.id for pair in find_pairs(old) if pair.split == split]
    positions = np.linspace(0, len(ids) - 1, min(NUM_OLD, len(ids))).round().astype(int)
    return tuple(ids[i] for i in positions)


def overrides_of(
    start: str, old: Path, share: float | None, further: Sequence[str]
) -> tuple[str, ...]:
    """``--set`` of an adaptation; without ``share`` nothing is replayed."""
    chosen = (*RECIPE, *further, f"train.init_from={start}")
    if share is None:
        return chosen
    return *chosen, f'train.replay={{data: "{old.resolve()}", share: {share}}}'


def scores_of(enhance: Enhancer, root: Path, ids: Sequence[str]) -> Scores:
    """PSNR as it is and aligned to the reference's mean brightness, and SSIM, of each pair."""
    values = []
    for pair_id in ids:
        ((low, high),) = load_pairs(root, [pair_id])
        found = scoring.score(enhance(low), high)
        values.append((found.psnr, found.gt_mean_psnr, found.ssim))
    plain, matched, similar = zip(*values, strict=True)
    return Scores(psnr=plain, aligned=matched, ssim=similar)


def measure(data: Path, wanted: Run, folder: Path) -> Run:
    """Adapt, unless that was done; the model and its time are in the folder.

    Raises:
        UsageError: it was done with another recipe or start.
    """
    if (folder / RUN).is_file():
        run = read_run(folder / RUN)
        check_same(run, wanted)
        return run
    print(f"{folder.name}: training", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    # Ray takes longer to start than a part of so short a training
    environment = {"MIRNET_RAY_ADDRESS": IN_PROCESS, **os.environ}
    minutes = train(data, "cpu", wanted.overrides, folder, environment)
    result = TrainResult.load(folder / "reports" / "train.json")
    trained = {
        "steps": result.history[-1].step,
        "best_epoch": result.best_epoch,
        "minutes": minutes,
        "core_minutes": sum(epoch.cpu_s for epoch in result.history) / 60,
    }
    run = wanted.model_copy(update=trained)
    save(run, folder / RUN)
    return run


def score(run: Run, model: Path, judged: Judged, path: Path) -> None:
    """Write the run with its scores, unless that was done.

    Raises:
        UsageError: it was done with another recipe or start.
    """
    if path.is_file():
        check_same(read_run(path), run)
        return
    enhance = Enhancer.load(model, precision="float32", compile=False)
    scores = {
        "camera": scores_of(enhance, *judged.camera),
        "old": scores_of(enhance, *judged.old),
    }
    save(run.model_copy(update={"scores": scores}), path)


def check_same(stored: Run, wanted: Run) -> None:
    """Refuse to mix recipes in a folder."""
    if (stored.overrides, stored.start) != (wanted.overrides, wanted.start):
        raise UsageError("the runs in the folder have another recipe or start; name another --into")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is missing, and show all."""
    options = parsed(arguments)
    apply_engine_defaults()
    photographs, into = options.photographs, options.into.resolve()
    old = options.old or into / "old"
    if not old.is_dir():
        make_from_photographs(
            photographs, old, seed=SEED, per_photo=PER_PHOTO, size=SIDE, ranges=WIDE
        )
    roles = roles_of(old, max(options.pairs))
    names, split = (roles.choose, "choose") if options.choose else (roles.test, EVAL_SPLIT)
    shots = shots_of(photographs, names, split, per_photo=PER_JUDGED)
    camera = make_pairs(shots, into / f"camera-{split}"), tuple(shot.pair_id for shot in shots)
    judged = Judged(camera, (old, old_pairs(old, choose=options.choose)))
    address = options.start
    if not address.startswith("models:/"):
        address = str(Path(address).resolve())
    start = open_model(address, load_run_config("cpu"))
    digest = start.ref.weights_digest or ""
    scored = f"{split}.json"
    score(Run(pairs=0, replay=None, start=digest), start.folder, judged, into / "0" / scored)
    for num_pairs, share in product(options.pairs, (None, options.share)):
        shots = shots_of(photographs, roles.adapt[:num_pairs], TRAIN_SPLIT)
        data = make_pairs(shots, into / f"camera-{num_pairs}")
        overrides = overrides_of(address, old, share, options.set)
        wanted = Run(pairs=num_pairs, replay=share, start=digest, overrides=overrides)
        folder = into / f"{num_pairs}-{'replay' if share else 'alone'}"
        score(measure(data, wanted, folder), folder / "model", judged, folder / scored)
    runs = finished(into, scored)
    (into / "table.md").write_text(table(runs), encoding="utf-8")
    draw(runs, into / "curve.png")
    print(table(runs))


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument(
        "--start",
        required=True,
        help="model folder or models:/NAME@ALIAS, of the preset cpu's network",
    )
    parser.add_argument("--old", type=Path, help="pairs that the start was trained on")
    parser.add_argument("--pairs", nargs="+", type=int, default=[3, 10, 30])
    parser.add_argument("--share", type=float, default=SHARE, help="of replayed samples")
    parser.add_argument("--set", nargs="+", default=[], help="section.key=value")
    parser.add_argument("--choose", action="store_true", help="score on pairs kept for choosing")
    parser.add_argument("--into", type=Path, default=Path("reports/new-camera"))
    return parser.parse_args(arguments)


if __name__ == "__main__":
    try:
        main()
    except MirnetError as error:
        sys.exit(str(error))
