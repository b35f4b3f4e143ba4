"""Intervals by bootstrap over images, paired differences, and spread over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import bootstrap, norm as normal, t as student

CONFIDENCE = 0.95
POWER = 0.8


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
    metric: str = "psnr",
) -> Gain:
    """The paired gain of ``method`` over ``against`` on the same images.

    Args:
        scores: one row per image and method, as scoring writes it.
        metric: a column of them.

    Raises:
        ValueError: they were not scored on the same images.
    """
    difference = paired_differences(scores, method, against, metric=metric)
    return mean_difference(
        difference.to_numpy(dtype=np.float64), num_samples=num_samples, seed=seed
    )


def paired_differences(
    scores: pd.DataFrame, method: str, against: str, *, metric: str = "psnr"
) -> pd.Series:
    """``metric`` of ``method`` minus that of ``against``, one per image, by pair id.

    Raises:
        ValueError: they were not scored on the same images.
    """
    table = scores.pivot(index="pair_id", columns="method", values=metric)
    missing = {method, against} - set(table.columns)
    if missing:
        raise ValueError(f"not scored: {', '.join(sorted(missing))}")
    both = table[[method, against]]
    if both.isna().any(axis=None):
        raise ValueError(f"{method} and {against} were not scored on the same images")
    difference: pd.Series = both[method] - both[against]
    return difference


def student_gain(differences: NDArray[np.float64]) -> Gain:
    """Mean of paired differences with Student's 95 % interval: for a handful of images, on which
    a bootstrap is too narrow.

    Raises:
        ValueError: fewer than two differences.
    """
    found = spread(differences.tolist())
    factor = float(student.ppf((1 + CONFIDENCE) / 2, found.num_seeds - 1))
    half = factor * found.std / math.sqrt(found.num_seeds)
    return Gain(found.mean, found.mean - half, found.mean + half, found.num_seeds)


def images_needed(differences: NDArray[np.float64], *, gain: float) -> int:
    """Images on which a mean paired gain is told from 0 in four of five evaluations.

    By the normal approximation, with a two-sided test of 5 % and 80 % power (Cohen, 1988):
    ``((1.96 + 0.84) s / gain)²`` for differences of standard deviation ``s``.

    Raises:
        ValueError: fewer than two differences, or no gain to tell.
    """
    if differences.size < 2 or gain <= 0:
        raise ValueError("needs two differences or more and a positive gain")
    quantiles = float(normal.ppf((1 + CONFIDENCE) / 2) + normal.ppf(POWER))
    return max(2, math.ceil((quantiles * float(differences.std(ddof=1)) / gain) ** 2))


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
