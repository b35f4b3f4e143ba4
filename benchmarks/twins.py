"""What it is worth to have seen a scene: the same images, with and without their scene in training.

    python -m benchmarks.twins DATA [--preset cpu] [--count 40] [--into reports/twins]

DATA is in the LoL layout, whose training half shows many scenes twice or more. One image of each of
`count` such scenes is held out. Two networks are trained by the preset: one keeps the other images
of these scenes, as the training half holds 14 of the 15 scenes of eval15; one loses the scenes
altogether. Both are scored on the held out images, so that the difference is the scenes alone.
A finished training is kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from mirnet.config import Settings, apply_engine_defaults
from mirnet.data.layout import TRAIN_SPLIT
from mirnet.data.loading import load_pairs
from mirnet.data.manifest import build_manifest
from mirnet.data.versioning import data_version
from mirnet.errors import DataError, MirnetError
from mirnet.evaluation.metrics import luma
from mirnet.evaluation.scoring import score_pairs
from mirnet.evaluation.statistics import mean_difference
from mirnet.inference import Enhancer
from mirnet.models import load_model
from mirnet.params import Params, load_params
from mirnet.training import IN_PROCESS, Listener, TrainRequest, train_model

SEEN, UNSEEN = "seen", "unseen"
METRICS = {"plain": "psnr", "aligned": "gt_mean_psnr", "SSIM": "ssim"}


def roles(manifest: pd.DataFrame, count: int, seed: int) -> dict[str, tuple[str, ...]]:
    """Pair ids: the held out, and the training pairs of both networks.

    Raises:
        DataError: no scene has two pairs.
    """
    train = manifest[(manifest["split"] == TRAIN_SPLIT) & (manifest["kind"] == "pair")]
    scenes = train.groupby("scene")["pair"].apply(sorted)
    several = scenes[scenes.map(len) > 1]
    if several.empty:
        raise DataError("no scene of the training pairs is there twice")
    rng = np.random.default_rng(seed)
    chosen = several.iloc[sorted(rng.permutation(len(several))[:count])]
    held = {scene: pairs[int(rng.integers(len(pairs)))] for scene, pairs in chosen.items()}
    known = train[~train["pair"].isin(held.values())]
    return {
        "held": tuple(sorted(held.values())),
        SEEN: tuple(sorted(known["pair"])),
        UNSEEN: tuple(sorted(known[~known["scene"].isin(held)]["pair"])),
    }


def trained(
    data: Path, ids: Sequence[str], held: Sequence[str], params: Params, into: Path
) -> Path:
    """The model folder of a network trained on these pairs; its last weights."""
    model = into / "model"
    if model.is_dir():
        return model
    request = TrainRequest(
        root=data,
        train_ids=ids,
        val_ids=held[:1],  # the loop wants one; nothing is chosen by it
        params=params,
        settings=Settings(workspace=into / "checkpoints", ray_address=IN_PROCESS),
        digest=data_version(data).digest,
        run_name=into.name,
        model_dir=model,
    )
    epochs = params.train.num_epochs
    train_model(request, Listener(on_progress=lambda epoch: print(epoch.describe(epochs))))
    return model


def scores_of(data: Path, held: Sequence[str], model: Path, params: Params) -> pd.DataFrame:
    """One row per image, with the error of brightness: the log of output over reference."""
    pairs = [(i, low, high) for i, (low, high) in zip(held, load_pairs(data, held), strict=True)]
    outputs: dict[tuple[str, str], np.ndarray] = {}
    scores, _ = score_pairs(
        pairs, {"mirnet": Enhancer(load_model(model))}, params.evaluate, outputs=outputs
    )
    scores["brightness"] = [
        np.log(luma(outputs[pair_id, "mirnet"]).mean() / luma(high).mean())
        for pair_id, _, high in pairs
    ]
    return scores


def main() -> None:
    """Train both, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--preset", default="cpu")
    parser.add_argument("--count", type=int, default=40, help="scenes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--into", type=Path, default=Path("reports/twins"))
    options = parser.parse_args()
    apply_engine_defaults()
    params = load_params(options.preset)
    # the last weights: no epoch is chosen
    fixed = {"validate_every": params.train.num_epochs, "early_stop": None, "samples_every": None}
    params = params.model_copy(update={"train": params.train.model_copy(update=fixed)})
    chosen = roles(build_manifest(options.data), options.count, options.seed)
    tables = {}
    for kind in (SEEN, UNSEEN):
        model = trained(options.data, chosen[kind], chosen["held"], params, options.into / kind)
        tables[kind] = scores_of(options.data, chosen["held"], model, params)
    print(table(tables, {kind: len(chosen[kind]) for kind in tables}))


def table(tables: dict[str, pd.DataFrame], pairs: dict[str, int]) -> str:
    """Markdown, one row per network, and the paired difference with its 95 % interval."""
    columns = *METRICS, "error of brightness"
    lines = [f"| scenes in training | pairs | {' | '.join(columns)} |"]
    lines.append("| --- | ---: |" + " ---: |" * len(columns))
    for kind, scores in tables.items():
        means = [f"{scores[column].mean():.3f}" for column in METRICS.values()]
        error = float(np.sqrt((scores["brightness"] ** 2).mean()))
        lines.append(f"| {kind} | {pairs[kind]} | {' | '.join(means)} | {error:.3f} |")
    cells = []
    for column in METRICS.values():
        difference = (tables[SEEN][column] - tables[UNSEEN][column]).to_numpy(dtype=np.float64)
        gain = mean_difference(difference, num_samples=2000, seed=0)
        cells.append(f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
    lines.append(f"| difference | | {' | '.join(cells)} | |")
    return "\n".join(lines)


if __name__ == "__main__":
    try:
        main()
    except MirnetError as error:
        sys.exit(str(error))
