"""Intervals by bootstrap over images, paired differences, and spread over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap, t as student

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Gain:
    """Mean paired difference over images with its 95 % interval."""

    mean: float
    low: float
    high: float
    num_images: int

    def __str__(self) -> str:
        return f"{self.mean:+.2f} dB ({self.low:+.2f} to {self.high:+.2f})"


@dataclass(frozen=True)
class Spread:
    """Mean over runs that differ in their seed, with sample standard deviation, min and max."""

    mean: float
    std: float
    low: float
    high: float
    num_seeds: int


def interval(values: NDArray[np.float64], *, num_samples: int, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval (BCa; Efron, 1987) of the mean of one value per image.

    Equal values, or a single value, give an interval of zero width, so the number of images
    has to be checked too.
    """
    if values.size == 0:
        raise ValueError("an interval needs at least one value")
    if np.ptp(values) < 1e-12:
        return float(values[0]), float(values[0])
    result = bootstrap(
        (values,),
        np.mean,
        n_resamples=num_samples,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def paired_gain(
    scores: pd.DataFrame,
    method: str,
    against: str,
    *,
    num_samples: int,
    seed: int,
) -> Gain:
    """The paired PSNR gain of ``method`` over ``against`` on the same images.

    Args:
        scores: one row per image and method, as scoring writes it.

    Raises:
        ValueError: they were not scored on the same images.
    """
    table = scores.pivot(index="pair_id", columns="method", values="psnr")
    missing = {method, against} - set(table.columns)
    if missing:
        raise ValueError(f"not scored: {', '.join(sorted(missing))}")
    both = table[[method, against]]
    if both.isna().any(axis=None):
        raise ValueError(f"{method} and {against} were not scored on the same images")
    difference = (both[method] - both[against]).to_numpy(dtype=np.float64)
    return mean_difference(difference, num_samples=num_samples, seed=seed)


def mean_difference(differences: NDArray[np.float64], *, num_samples: int, seed: int) -> Gain:
    """Mean of paired differences, one per image, with its 95 % interval."""
    low, high = interval(differences, num_samples=num_samples, seed=seed)
    return Gain(float(differences.mean()), low, high, num_images=int(differences.size))


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of one metric over seeds.

    Raises:
        ValueError: fewer than two values; one run has no spread.
    """
    if len(values) < 2:
        raise ValueError(f"a spread needs two runs or more, got {len(values)}")
    array = np.asarray(values, dtype=np.float64)
    return Spread(
        mean=float(array.mean()),
        std=float(array.std(ddof=1)),
        low=float(array.min()),
        high=float(array.max()),
        num_seeds=len(values),
    )


def prediction_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval for one more value of the same normal distribution: mean ± t s sqrt(1 + 1/n).

    Hahn and Meeker, Statistical Intervals, 1991.

    Raises:
        ValueError: fewer than two values.
    """
    found = spread(values)
    n = found.num_seeds
    factor = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = factor * found.std * float(np.sqrt(1 + 1 / n))
    return found.mean - half, found.mean + half
