"""Two models on the same images: paired differences, groups of images, and the images to look at.

All differences are the first model minus the second, image by image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from mirnet.errors import DataError
from mirnet.evaluation.slices import thirds
from mirnet.evaluation.statistics import Gain, mean_difference
from mirnet.params import EvaluateParams

MIN_IMAGES = 5
"""Fewer have no interval: the bootstrap would be far too narrow."""
_MOST_SIZES = 4
_GAINS, _LOWEST = 3, 2
_NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Metric:
    """A column of the scores and how to read it."""

    column: str
    title: str
    unit: str
    decimals: int
    higher_is_better: bool = False


PSNR = Metric("psnr", "PSNR", "dB", 2, higher_is_better=True)
METRICS = (
    PSNR,
    Metric("ssim", "SSIM", "", 4, higher_is_better=True),
    Metric("ms_ssim", "MS-SSIM", "", 4, higher_is_better=True),
    Metric("ciede2000", "Colour difference, CIEDE2000", "", 2),
    Metric("colour_cast", "Colour cast, CIE a*b*", "", 2),
    Metric("added_noise", "Added noise", "grey levels", 2),
    Metric("halo", "Halo", "grey levels", 2),
    Metric("added_clipping", "Added clipping", "share of pixels", 4),
)


@dataclass(frozen=True)
class MetricDifference:
    """Means of both models, and their paired difference.

    ``first_better`` and ``second_better`` count images; ties are in neither. ``difference`` has no
    interval worth showing below :data:`MIN_IMAGES` images.
    """

    metric: Metric
    first: float
    second: float
    difference: Gain
    first_better: int
    second_better: int

    @property
    def winner(self) -> int | None:
        """0 or 1: the interval of the difference leaves out zero in its favour; else none."""
        gain = self.difference
        if gain.num_images < MIN_IMAGES or gain.low <= 0 <= gain.high:
            return None
        return int((gain.low > 0) != self.metric.higher_is_better)


@dataclass(frozen=True)
class Slice:
    """PSNR on a group of the images."""

    group: str
    name: str
    psnr: MetricDifference


@dataclass(frozen=True)
class Comparison:
    """``images``: one row per image, best for the first model on top.

    Its columns: ``pair_id``, ``first`` and ``second`` (PSNR in dB), ``difference``, the same with
    ``_ssim``, and ``low_luma``, the mean brightness of the dark image (0 to 255).
    """

    metrics: tuple[MetricDifference, ...]
    slices: tuple[Slice, ...]
    images: pd.DataFrame

    @property
    def psnr(self) -> MetricDifference:
        """The headline."""
        return self.metrics[0]

    def picks(self) -> dict[str, tuple[str, ...]]:
        """Pair ids worth a look, each with its reasons; ``{0}`` and ``{1}`` stand for the models.

        The largest gains of either model, then the lowest PSNR of each.
        """
        table = self.images
        gains = table[table["difference"] > _NEGLIGIBLE]["pair_id"]
        losses = table[table["difference"] < -_NEGLIGIBLE]["pair_id"]
        found: dict[str, tuple[str, ...]] = {}
        for reason, pair_ids in (
            ("{0} gains most", gains.head(_GAINS)),
            ("{1} gains most", losses[::-1].head(_GAINS)),
            ("lowest PSNR of {0}", table.nsmallest(_LOWEST, "first")["pair_id"]),
            ("lowest PSNR of {1}", table.nsmallest(_LOWEST, "second")["pair_id"]),
        ):
            for pair_id in map(str, pair_ids):
                found[pair_id] = (*found.get(pair_id, ()), reason)
        return found


def compare(first: pd.DataFrame, second: pd.DataFrame, params: EvaluateParams) -> Comparison:
    """Compare two models by their scores, one row per image each.

    Raises:
        DataError: they were not scored on the same images.
    """
    one, other = first.set_index("pair_id"), second.set_index("pair_id")
    if set(one.index) != set(other.index) or one.index.has_duplicates:
        apart = sorted(set(one.index) ^ set(other.index))
        raise DataError(f"not scored on the same images: {', '.join(map(str, apart[:5]))}")
    one, other = one.sort_index(), other.sort_index()
    metrics = [
        _difference(metric, one, other, params)
        for metric in METRICS
        # of images below 176 pixels there is no MS-SSIM, and 0.1 had fewer columns
        if all(m in t and t[m].notna().all() for t in (one, other) for m in [metric.column])
    ]
    slices = [
        Slice(group, name, _difference(PSNR, one[chosen], other[chosen], params))
        for group, name, chosen in _groups(one)
    ]
    images = pd.DataFrame(
        {
            "first": one["psnr"],
            "second": other["psnr"],
            "difference": one["psnr"] - other["psnr"],
            "first_ssim": one["ssim"],
            "second_ssim": other["ssim"],
            "difference_ssim": one["ssim"] - other["ssim"],
            "low_luma": one["low_luma"],
        }
    )
    images = images.sort_values("difference", ascending=False, kind="stable").reset_index()
    return Comparison(tuple(metrics), tuple(slices), images)


def _difference(
    metric: Metric, one: pd.DataFrame, other: pd.DataFrame, params: EvaluateParams
) -> MetricDifference:
    pairs = (one[metric.column] - other[metric.column]).to_numpy(dtype=np.float64)
    gain = mean_difference(pairs, num_samples=params.bootstrap_samples, seed=params.seed)
    favour = pairs if metric.higher_is_better else -pairs
    return MetricDifference(
        metric,
        first=float(one[metric.column].mean()),
        second=float(other[metric.column].mean()),
        difference=gain,
        first_better=int((favour > _NEGLIGIBLE).sum()),
        second_better=int((favour < -_NEGLIGIBLE).sum()),
    )


def _groups(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.Series]]:
    """Group, name, and which images: by what is known of an image before a model sees it."""
    # not known of a reference whose output is black
    reference = scores["luma"] / scores["luma_ratio"].where(scores["luma_ratio"] > 0)
    for group, values in (("dark image", scores["low_luma"]), ("reference", reference)):
        yield from _thirds(group, values)
    sizes = scores["width"].astype(int).astype(str) + "x" + scores["height"].astype(int).astype(str)
    if 2 <= sizes.nunique() <= _MOST_SIZES:
        for size in sizes.unique():
            yield "size", str(size), sizes == size


def _thirds(group: str, values: pd.Series) -> Iterator[tuple[str, str, pd.Series]]:
    """None if there are too few images, or hardly a difference between them."""
    if np.ptp(values[np.isfinite(values.to_numpy(dtype=np.float64))].to_numpy()) < 1:
        return
    for name, chosen in thirds(values).items():
        low, high = values[chosen].min(), values[chosen].max()
        yield group, f"{name} third, mean brightness {low:.0f} to {high:.0f} of 255", chosen
