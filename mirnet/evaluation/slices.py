"""Thirds of images by what is known of them before a model sees them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

DARKNESS = ("darkest", "middle", "brightest")
# column of scores: how its thirds are called
SLICES = {
    "low_luma": ("darkest", "medium-dark", "brightest"),
    "low_colourfulness": ("least colourful", "medium-colourful", "most colourful"),
    "low_noise": ("least noisy", "medium-noisy", "noisiest"),
}


def thirds(
    values: pd.Series, names: Sequence[str] = DARKNESS, *, fewest: int = 2
) -> dict[str, pd.Series]:
    """Masks of the thirds by rank of the finite values, by name, from the least to the largest.

    Args:
        fewest: images per third; with less than that there are no thirds.
    """
    finite = values[np.isfinite(values.to_numpy(dtype=np.float64))]
    if len(finite) < len(names) * fewest:
        return {}
    rank = finite.rank(method="first") - 1
    third = (rank * len(names) // len(finite)).astype(int).reindex(values.index, fill_value=-1)
    return {name: third == number for number, name in enumerate(names)}
