"""Scores of methods on pairs: one row per image and method, and means with intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mirnet.errors import DataError
from mirnet.evaluation import defects, metrics
from mirnet.evaluation.baselines import Enhance
from mirnet.evaluation.statistics import interval, paired_gain
from mirnet.params import EvaluateParams
from mirnet.results import MethodScore

ScoredPair = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]

HEADLINE = ("psnr", "ssim")


def score_pairs(
    pairs: Sequence[ScoredPair],
    methods: Mapping[str, Enhance],
    params: EvaluateParams,
    *,
    outputs: dict[tuple[str, str], NDArray[np.uint8]] | None = None,
) -> tuple[pd.DataFrame, dict[str, MethodScore]]:
    """Run every method on every low image and compare with its high image.

    Args:
        pairs: (pair id, low, high), uint8 HWC RGB, equal sizes.
        methods: by name; each maps uint8 HWC to uint8 HWC of the same size.
        outputs: filled with what each method gave, by (pair id, method), for the report.

    Returns:
        One row per image and method (columns of :func:`score_image`), and one score per method.

    Raises:
        DataError: no pairs, low and high differ in size, or a method changed the size.
    """
    if not pairs:
        raise DataError("no pairs to score: the split is empty")
    rows: list[dict[str, float | str]] = []
    for pair_id, low, high in pairs:
        for name, enhance in methods.items():
            output, seconds = _run(pair_id, low, high, name, enhance)
            rows.append(
                {
                    "pair_id": pair_id,
                    "method": name,
                    "width": high.shape[1],
                    "height": high.shape[0],
                    "seconds": seconds,
                    **score_image(output, high, low=low),
                }
            )
            if outputs is not None:
                outputs[pair_id, name] = output
    scores = pd.DataFrame(rows)
    return scores, {name: summarise(scores, name, params) for name in methods}


def score_image(
    output: NDArray[np.uint8], reference: NDArray[np.uint8], *, low: NDArray[np.uint8]
) -> dict[str, float]:
    """All figures of one enhanced image; ``gt_mean_*`` look at the answer and are no headline."""
    matched = metrics.gt_mean(output, reference)
    brightness = float(metrics.luma(output).mean())
    return {
        "psnr": metrics.psnr(output, reference),
        "ssim": metrics.ssim(output, reference),
        "ms_ssim": metrics.ms_ssim(output, reference),
        "ciede2000": defects.ciede2000(output, reference),
        "gt_mean_psnr": metrics.psnr(matched, reference),
        "gt_mean_ssim": metrics.ssim(matched, reference),
        "low_luma": float(metrics.luma(low).mean()),
        "luma": brightness,
        "luma_ratio": brightness / max(float(metrics.luma(reference).mean()), 1e-8),
        "noise": defects.noise_sigma(output),
        "added_noise": defects.noise_sigma(output) - defects.noise_sigma(reference),
        "clipped": defects.clipped_share(output),
        "added_clipping": defects.clipped_share(output) - defects.clipped_share(reference),
        "added_crushing": defects.crushed_share(output) - defects.crushed_share(reference),
        "colour_cast": defects.colour_cast(output, reference),
        "halo": defects.halo(output, reference),
    }


def add_gains(
    scores: pd.DataFrame,
    summary: Mapping[str, MethodScore],
    candidate: str,
    params: EvaluateParams,
) -> dict[str, MethodScore]:
    """The summary with the candidate's paired PSNR gain over every other method."""
    told = dict(summary)
    for name in summary.keys() - {candidate}:
        gain = paired_gain(
            scores, candidate, name, num_samples=params.bootstrap_samples, seed=params.seed
        )
        update = {"gain": (gain.mean, gain.low, gain.high)}
        told[name] = summary[name].model_copy(update=update)
    return told


def summarise(scores: pd.DataFrame, method: str, params: EvaluateParams) -> MethodScore:
    """Means of one method with 95 % bootstrap intervals for PSNR and SSIM."""
    rows = scores[scores["method"] == method]
    # a figure that some images do not have would be a mean over others than the rest
    means = rows.drop(columns=["pair_id", "method"]).mean(skipna=False)
    intervals = {
        name: interval(
            rows[name].to_numpy(dtype=np.float64),
            num_samples=params.bootstrap_samples,
            seed=params.seed,
        )
        for name in HEADLINE
    }
    megapixels = float((rows["width"] * rows["height"]).sum()) / 1e6
    extra = {str(k): float(v) for k, v in means.items() if k not in HEADLINE and np.isfinite(v)}
    return MethodScore(
        method=method,
        num_images=len(rows),
        psnr=float(means["psnr"]),
        psnr_interval=intervals["psnr"],
        ssim=float(means["ssim"]),
        ssim_interval=intervals["ssim"],
        extra=extra | {"seconds_per_megapixel": float(rows["seconds"].sum()) / megapixels},
    )


def _run(
    pair_id: str,
    low: NDArray[np.uint8],
    high: NDArray[np.uint8],
    name: str,
    enhance: Enhance,
) -> tuple[NDArray[np.uint8], float]:
    if low.shape != high.shape:
        raise DataError(f"{pair_id}: low is {low.shape[:2]}, high is {high.shape[:2]}")
    start = time.perf_counter()
    output = enhance(low)
    seconds = time.perf_counter() - start
    if output.shape != high.shape or output.dtype != np.uint8:
        raise DataError(
            f"{pair_id}: {name} gave {output.dtype} {output.shape}, expected uint8 {high.shape}"
        )
    return output, seconds
