"""How much of the brightness of a reference can be known from the dark image.

    python -m benchmarks.brightness DATA      # training pairs in the LoL layout

Predicts the log mean luma of each reference from its dark image (quantiles of luma, mean colours,
a grid of 4x4 means, colourfulness, noise) with three kinds of regression, by cross-validation in
five parts: with whole scenes left out, and with images left out of scenes that stay (what an
evaluation on scenes of the training pairs sees). An error of the log mean is, to first order, the
relative error of brightness; the floor of PSNR is what such an error alone costs an otherwise
perfect output.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mirnet.data.layout import TRAIN_SPLIT
from mirnet.data.loading import load_pairs
from mirnet.data.manifest import build_manifest
from mirnet.evaluation.defects import colourfulness, noise_sigma
from mirnet.evaluation.metrics import luma, psnr

_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_GRID = 4
_FOLDS = 5
_SEEDS = range(5)


@dataclass(frozen=True)
class Pairs:
    """Features of the dark images, log mean luma and scene of the references."""

    ids: list[str]
    features: NDArray[np.float64]
    target: NDArray[np.float64]
    scenes: NDArray[np.int64]


def features_of(low: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What is known of a dark image: logarithms of quantiles, colours and a grid of means."""
    grey = luma(low)
    rows = np.array_split(grey, _GRID, axis=0)
    cells = [part.mean() for row in rows for part in np.array_split(row, _GRID, axis=1)]
    values = [*np.quantile(grey, _QUANTILES), *low.mean(axis=(0, 1)), *cells, noise_sigma(low)]
    return np.array([*np.log(np.asarray(values) + 0.5), colourfulness(low)])


def collect(data: Path) -> Pairs:
    """The training pairs of a data folder.

    Raises:
        DataError: no data in the LoL layout.
    """
    manifest = build_manifest(data)
    train = manifest[(manifest["split"] == TRAIN_SPLIT) & (manifest["kind"] == "pair")]
    ids = list(train["pair"])
    features, target = [], []
    for low, high in load_pairs(data, ids):
        features.append(features_of(low))
        target.append(np.log(luma(high).mean()))
    scenes = np.asarray(train["scene"].astype("category").cat.codes, dtype=np.int64)
    return Pairs(ids, np.stack(features), np.asarray(target), scenes)


def errors(pairs: Pairs, *, by_scene: bool) -> dict[str, float]:
    """Root mean square error of the log mean by kind of regression, over folds and five seeds."""
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.linear_model import RidgeCV
    from sklearn.model_selection import GroupKFold, KFold, cross_val_predict
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    kinds = {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 4, 13))),
        "trees": ExtraTreesRegressor(300, min_samples_leaf=2, random_state=0),
        "neighbours": make_pipeline(StandardScaler(), KNeighborsRegressor(5, weights="distance")),
    }
    found: dict[str, list[float]] = {kind: [] for kind in ("mean", *kinds)}
    for seed in _SEEDS:
        folds = (GroupKFold if by_scene else KFold)(_FOLDS, shuffle=True, random_state=seed)
        groups = pairs.scenes if by_scene else None
        parts = list(folds.split(pairs.features, pairs.target, groups))
        means = np.concatenate(
            [pairs.target[test] - pairs.target[train].mean() for train, test in parts]
        )
        found["mean"].append(float(np.mean(means**2)))
        for kind, model in kinds.items():
            predicted = cross_val_predict(model, pairs.features, pairs.target, cv=parts)
            found[kind].append(float(np.mean((predicted - pairs.target) ** 2)))
    return {kind: float(np.sqrt(np.mean(values))) for kind, values in found.items()}


def floor_of_psnr(data: Path, pairs: Pairs, error: float, *, count: int = 60) -> float:
    """Mean PSNR of references scaled by ``exp(±error)``: perfect but for their brightness."""
    chosen = pairs.ids[:: max(1, len(pairs.ids) // count)]
    values = []
    for _, high in load_pairs(data, chosen):
        for factor in (np.exp(error), np.exp(-error)):
            scaled = (high * factor).round().clip(0, 255).astype(np.uint8)
            values.append(psnr(scaled, high))
    return float(np.mean(values))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="a folder in the LoL layout")
    data = parser.parse_args().data
    pairs = collect(data)
    number = len(set(pairs.scenes.tolist()))
    print(f"{len(pairs.target)} pairs of {number} scenes")
    print(f"log mean luma of the references: standard deviation {pairs.target.std():.3f}\n")
    print("| from the dark image by | unseen scenes | PSNR at most | seen scenes | PSNR at most |")
    print("| --- | --- | --- | --- | --- |")
    unseen, seen = (errors(pairs, by_scene=by_scene) for by_scene in (True, False))
    for kind in unseen:
        cells = [
            f"{value:.3f} | {floor_of_psnr(data, pairs, value):.1f} dB"
            for value in (unseen[kind], seen[kind])
        ]
        print(f"| {kind} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
