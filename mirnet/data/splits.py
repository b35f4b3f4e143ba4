"""Training, validation and evaluation pairs. Pairs of one scene always stay together."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd

from mirnet.data.layout import EVAL_SPLIT, TRAIN_SPLIT
from mirnet.errors import DataError
from mirnet.params import ValidateParams

log = logging.getLogger(__name__)


def split_pairs(manifest: pd.DataFrame, params: ValidateParams) -> dict[str, tuple[str, ...]]:
    """Pair ids by role: ``train``, ``val`` and ``eval``.

    ``val`` are whole scenes of the training split, at least one and about ``val_fraction`` of its
    pairs, determined by the seed. ``eval`` is ``eval15``, never used to choose a model; without
    it, ``val`` is used: then both roles have the same pairs.

    Raises:
        DataError: fewer than two scenes in the training split.
    """
    pairs = manifest[manifest["kind"] == "pair"]
    train = pairs[pairs["split"] == TRAIN_SPLIT]
    sizes = train.groupby("scene")["pair"].size()
    if len(sizes) < 2:
        raise DataError(
            f"{TRAIN_SPLIT} has {len(sizes)} scene(s); training and validation need at least two"
        )
    chosen = _choose(sizes, params)
    val = train["scene"].isin(chosen)
    roles = {"train": _ids(train[~val]), "val": _ids(train[val])}
    roles["eval"] = _ids(pairs[pairs["split"] == EVAL_SPLIT])
    if not roles["eval"]:
        log.warning("no pairs in %s: the validation pairs stand in for it", EVAL_SPLIT)
        roles["eval"] = roles["val"]
    return roles


def val_stands_in(splits: dict[str, tuple[str, ...]]) -> bool:
    """Whether evaluation has no pairs of its own."""
    return splits["eval"] == splits["val"]


def _choose(sizes: pd.Series, params: ValidateParams) -> set[str]:
    """Scenes in random order until the share is reached; at least one is left for training.

    A scene much larger than the share is skipped; if all are, the smallest is taken.
    """
    order = np.random.default_rng(params.seed).permutation(len(sizes))
    wanted = params.val_fraction * sizes.sum()
    chosen: set[str] = set()
    held = 0
    scenes = [str(scene) for scene in sizes.sort_index().index[order][:-1]]
    for scene in scenes:
        if held + sizes[scene] / 2 > wanted:
            continue
        chosen.add(scene)
        held += int(sizes[scene])
        if held >= wanted:
            break
    return chosen or {min(scenes, key=sizes.__getitem__)}


def _ids(pairs: pd.DataFrame) -> tuple[str, ...]:
    return tuple(sorted(pairs["pair"]))
