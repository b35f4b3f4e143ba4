"""Image metrics with fixed conventions; the data range is always given, never inferred.

The main metrics are RGB PSNR and SSIM on images of equal size rounded to 8 bits, per image, then
averaged over images: no resize, no crop, no padding in the score. Arrays are HWC RGB.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import mean_squared_error, structural_similarity
from torch import Tensor

from mirnet.images.stats import REC601, to_luma

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
MS_SSIM_MIN_SIDE = SSIM_WINDOW * 2 ** (len(MS_SSIM_WEIGHTS) - 1)
PSNR_CAP_DB = 100.0


def to_uint8(batch: Tensor) -> Tensor:
    """Float [0, 1] of any shape to uint8, clamped and rounded, as stored in a PNG file."""
    return (batch.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def psnr(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> float:
    """PSNR in dB of two HWC images in 0..data_range; equal images give 100.

    Raises:
        ValueError: the shapes differ.
    """
    _check_shapes(output, reference)
    error = float(mean_squared_error(reference.astype(np.float64), output.astype(np.float64)))
    if error == 0:
        return PSNR_CAP_DB
    return min(10 * math.log10(data_range**2 / error), PSNR_CAP_DB)


def ssim(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> float:
    """SSIM (Wang et al., 2004) of two HWC images in 0..data_range.

    11x11 Gaussian, sigma 1.5, population variance, per channel, in float64, mean over the region
    where the window fits.

    Raises:
        ValueError: the shapes differ, or a side is under 11 pixels.
    """
    _check_shapes(output, reference)
    if min(output.shape[:2]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels per side, got {output.shape[:2]}")
    value = structural_similarity(  # type: ignore[no-untyped-call]
        reference.astype(np.float64),
        output.astype(np.float64),
        data_range=data_range,
        channel_axis=2,
        gaussian_weights=True,
        sigma=SSIM_SIGMA,
        use_sample_covariance=False,
    )
    return float(value)


def ms_ssim(output: NDArray[np.generic], reference: NDArray[np.generic]) -> float:
    """Five-scale MS-SSIM (Wang et al., 2003) of two HWC images in 0..255.

    Each scale halves by 2x2 means; negative terms count as zero. NaN under 176 pixels per side.
    """
    _check_shapes(output, reference)
    if min(output.shape[:2]) < MS_SSIM_MIN_SIDE:
        return float("nan")
    x, y = output.astype(np.float64), reference.astype(np.float64)
    product = 1.0
    for scale, weight in enumerate(MS_SSIM_WEIGHTS):
        similarity, contrast = _similarity_and_contrast(x, y)
        last = scale == len(MS_SSIM_WEIGHTS) - 1
        product *= max(similarity if last else contrast, 0.0) ** weight
        x, y = _halved(x), _halved(y)
    return product


def gt_mean(output: NDArray[np.generic], reference: NDArray[np.generic]) -> NDArray[np.float64]:
    """The output scaled to the mean grey of the reference, clipped to 0..255, HWC float64.

    The correction uses the reference and adds 2 to 4.6 dB on LoL, so scores after it are reported
    only under ``gt_mean_*`` names.
    """
    scale = luma(reference).mean() / max(luma(output).mean(), 1e-8)
    return np.asarray(np.clip(output.astype(np.float64) * scale, 0, 255))


def luma(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rec. 601 luma of an HWC RGB image, HW, in the image's own range."""
    return to_luma(image.astype(np.float64), REC601)


def _similarity_and_contrast(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float]:
    """Mean SSIM and mean of its contrast-structure term over the valid region."""
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    variances = _windowed(x * x) - mean_x**2 + _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (variances + c2)
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * contrast).mean()), float(contrast.mean())


def _windowed(image: NDArray[np.float64]) -> NDArray[np.float64]:
    radius = SSIM_WINDOW // 2
    blurred = ndimage.gaussian_filter(image, SSIM_SIGMA, axes=(0, 1), radius=radius)
    return np.asarray(blurred[radius:-radius, radius:-radius])


def _halved(image: NDArray[np.float64]) -> NDArray[np.float64]:
    height, width = (side // 2 * 2 for side in image.shape[:2])
    even = image[:height, :width]
    return np.asarray(even.reshape(height // 2, 2, width // 2, 2, -1).mean(axis=(1, 3)))


def _check_shapes(output: NDArray[np.generic], reference: NDArray[np.generic]) -> None:
    if output.shape != reference.shape:
        raise ValueError(f"images of different size: {output.shape} and {reference.shape}")
    if output.ndim != 3 or output.shape[2] != 3:
        raise ValueError(f"expected HWC RGB images, got shape {output.shape}")
