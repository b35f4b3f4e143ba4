"""Scores of methods on pairs: one row per image and method, and means with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mirnet.errors import DataError, UsageError
from mirnet.evaluation import anatomy, defects, metrics
from mirnet.evaluation.baselines import Enhance
from mirnet.evaluation.statistics import interval, paired_gain
from mirnet.images import read_rgb
from mirnet.params import EvaluateParams
from mirnet.results import MethodScore

ScoredPair = tuple[str, NDArray[np.uint8], NDArray[np.uint8]]

HEADLINE = ("psnr", "ssim")


@dataclass(frozen=True)
class Scores:
    """How close one image is to its reference; :func:`score` fills it.

    Attributes:
        psnr: dB over all values of the three channels, peak 255; higher is better, equal
            images give 100.
        ssim: structural similarity, -1 to 1, equal images give 1 (Wang et al., 2004: Gaussian
            window of 11x11, per channel).
        ms_ssim: five-scale structural similarity, 0 to 1 (Wang et al., 2003); NaN where a side
            has fewer than 176 pixels.
        ciede2000: mean colour difference, from 0 (equal) upwards; about 1 is just visible
            (sRGB, D65).
        gt_mean_psnr: ``psnr`` after the output was scaled to the mean brightness of the reference,
            as many papers do without saying so. Not comparable with ``psnr``.
        gt_mean_ssim: ``ssim`` after the same scaling.
    """

    psnr: float
    ssim: float
    ms_ssim: float
    ciede2000: float
    gt_mean_psnr: float
    gt_mean_ssim: float


def score(
    output: NDArray[np.uint8] | str | Path, reference: NDArray[np.uint8] | str | Path
) -> Scores:
    """Compare an image with its reference: PSNR, SSIM and colour difference.

    Nothing is resized, cropped or converted, and the data range is always 0 to 255, whatever the
    images hold.

    Args:
        output: (H, W, 3) RGB, uint8, or the path of an 8-bit RGB file; at least 11 pixels per
            side.
        reference: the same, of the same size.

    Raises:
        UsageError: the shapes differ, a side has fewer than 11 pixels, or an array is not
            (H, W, 3) uint8.
        ImageError: a file is missing, damaged or not 8-bit RGB; names it.
    """
    first, second = _rgb(output), _rgb(reference)
    if first.shape != second.shape:
        raise UsageError(f"output is {first.shape[:2]}, reference is {second.shape[:2]}")
    if min(first.shape[:2]) < metrics.SSIM_WINDOW:
        raise UsageError(f"SSIM needs {metrics.SSIM_WINDOW} pixels per side: {first.shape[:2]}")
    matched = metrics.gt_mean(first, second)
    return Scores(
        psnr=metrics.psnr(first, second),
        ssim=metrics.ssim(first, second),
        ms_ssim=metrics.ms_ssim(first, second),
        ciede2000=defects.ciede2000(first, second),
        gt_mean_psnr=metrics.psnr(matched, second),
        gt_mean_ssim=metrics.ssim(matched, second),
    )


def _rgb(source: NDArray[np.uint8] | str | Path) -> NDArray[np.uint8]:
    if isinstance(source, str | Path):
        return read_rgb(Path(source))
    if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
        raise UsageError(f"expected (height, width, 3) uint8, got {source.shape} {source.dtype}")
    return source


def score_pairs(
    pairs: Sequence[ScoredPair],
    methods: Mapping[str, Enhance],
    params: EvaluateParams,
    *,
    outputs: dict[tuple[str, str], NDArray[np.uint8]] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[pd.DataFrame, dict[str, MethodScore]]:
    """Run every method on every low image and compare with its high image.

    Args:
        pairs: (pair id, low, high), uint8 HWC RGB, equal sizes.
        methods: by name; each maps uint8 HWC to uint8 HWC of the same size.
        outputs: filled with the output of each method, by (pair id, method), for the report.
        progress: called after each pair with the number done and the total.

    Returns:
        One row per image and method (columns of :func:`score_image`), and one score per method.

    Raises:
        DataError: no pairs, low and high differ in size, or a method changed the size.
    """
    if not pairs:
        raise DataError("no pairs to score: the split is empty")
    rows: list[dict[str, float | str]] = []
    for number, (pair_id, low, high) in enumerate(pairs, start=1):
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
        if progress is not None:
            progress(number, len(pairs))
    scores = pd.DataFrame(rows)
    return scores, {name: summarise(scores, name, params) for name in methods}


def score_image(
    output: NDArray[np.uint8], reference: NDArray[np.uint8], *, low: NDArray[np.uint8]
) -> dict[str, float]:
    """All metrics of one enhanced image; ``gt_mean_*`` use the reference: never a main metric."""
    brightness = float(metrics.luma(output).mean())
    return asdict(score(output, reference)) | {
        "low_luma": float(metrics.luma(low).mean()),
        "low_colourfulness": defects.colourfulness(low),
        "low_noise": defects.noise_sigma(low),
        "luma": brightness,
        "luma_ratio": brightness / max(float(metrics.luma(reference).mean()), 1e-8),
        "noise": defects.noise_sigma(output),
        "added_noise": defects.noise_sigma(output) - defects.noise_sigma(reference),
        "clipped": defects.clipped_share(output),
        "added_clipping": defects.clipped_share(output) - defects.clipped_share(reference),
        "added_crushing": defects.crushed_share(output) - defects.crushed_share(reference),
        "colour_cast": defects.colour_cast(output, reference),
        "halo": defects.halo(output, reference),
        **anatomy.dissect(output, reference).columns(),
    }


def add_gains(
    scores: pd.DataFrame,
    summary: Mapping[str, MethodScore],
    candidate: str,
    params: EvaluateParams,
) -> dict[str, MethodScore]:
    """The summary with the candidate's paired PSNR gain over every other method."""
    with_gains = dict(summary)
    for name in summary.keys() - {candidate}:
        gain = paired_gain(
            scores, candidate, name, num_samples=params.bootstrap_samples, seed=params.seed
        )
        update = {"gain": (gain.mean, gain.low, gain.high)}
        with_gains[name] = summary[name].model_copy(update=update)
    return with_gains


def summarise(scores: pd.DataFrame, method: str, params: EvaluateParams) -> MethodScore:
    """Means of one method with 95 % bootstrap intervals for PSNR and SSIM."""
    rows = scores[scores["method"] == method]
    # a metric that is missing for some images would be averaged over a different set
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
    extra |= anatomy.means_by_darkness(rows)
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
