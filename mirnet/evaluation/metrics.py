"""Image metrics with pinned conventions; the data range is always given, never inferred.

Headline numbers are RGB PSNR and SSIM on 8-bit-rounded images of equal size, per image, then
the mean over images: no resize, no crop of the picture, no padding in the score. Arrays are HWC
RGB at the edges, tensors NCHW inside.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

SSIM_SIGMA = 1.5
SSIM_WINDOW = 11
MS_SSIM_MIN_SIDE = (SSIM_WINDOW - 1) * 2**4 + 1
PSNR_CAP_DB = 100.0


def to_uint8(batch: Tensor) -> Tensor:
    """Float [0, 1] of any shape to uint8, clamped and rounded: what a PNG file would hold."""
    return (batch.detach().float().clamp(0, 1) * 255).round().to(torch.uint8)


def psnr_per_image(output: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """PSNR in dB of each image, (N, 3, H, W) -> (N,) float64; equal images give 100."""
    output, reference = _pair_of_batches(output, reference)
    values = peak_signal_noise_ratio(
        output, reference, data_range=data_range, reduction="none", dim=(1, 2, 3)
    )
    return values.reshape(-1).clamp(max=PSNR_CAP_DB)


def ssim_per_image(output: Tensor, reference: Tensor, *, data_range: float) -> Tensor:
    """SSIM of each image, (N, 3, H, W) -> (N,) float64; H and W at least 11.

    11x11 Gaussian, sigma 1.5, population variance, per channel, mean over the region where the
    window fits (Wang et al., 2004). The library means over a reflect-padded map, so the border
    is cut from its full map here.
    """
    output, reference = _pair_of_batches(output, reference)
    if min(output.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs {SSIM_WINDOW} pixels a side, got {tuple(output.shape[-2:])}")
    _, full = structural_similarity_index_measure(
        output,
        reference,
        sigma=SSIM_SIGMA,
        data_range=data_range,
        reduction="none",
        return_full_image=True,
    )
    border = SSIM_WINDOW // 2
    inner: Tensor = full[..., border:-border, border:-border]
    return inner.mean(dim=(1, 2, 3))


def psnr(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> float:
    """PSNR in dB of two HWC images in 0..data_range; equal images give 100.

    Raises:
        ValueError: the shapes differ.
    """
    return float(psnr_per_image(_batch(output), _batch(reference), data_range=data_range))


def ssim(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> float:
    """SSIM of two HWC images in 0..data_range, as :func:`ssim_per_image` defines it.

    Raises:
        ValueError: the shapes differ, or a side is under 11 pixels.
    """
    return float(ssim_per_image(_batch(output), _batch(reference), data_range=data_range))


def ms_ssim(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> float:
    """Five-scale MS-SSIM (Wang et al., 2003) of two HWC images; NaN under 161 pixels a side."""
    if min(output.shape[:2]) < MS_SSIM_MIN_SIDE:
        return float("nan")
    return float(
        multiscale_structural_similarity_index_measure(
            _batch(output),
            _batch(reference),
            sigma=SSIM_SIGMA,
            data_range=data_range,
            normalize="relu",
        )
    )


def gt_mean(
    output: NDArray[np.generic], reference: NDArray[np.generic], *, data_range: float = 255.0
) -> NDArray[np.float64]:
    """The output scaled to the mean grey of the reference, clipped, HWC float64.

    A correction that looks at the answer: it adds 2 to 4.6 dB on LoL, so scores after it are
    reported only under ``gt_mean_*`` names.
    """
    scale = _luma(reference).mean() / max(_luma(output).mean(), 1e-8)
    scaled: NDArray[np.float64] = np.clip(output.astype(np.float64) * scale, 0, data_range)
    return scaled


def _luma(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """Rec. 601 luma of an HWC RGB image, in the image's own range."""
    weights = np.array([0.299, 0.587, 0.114])
    return np.asarray(image.astype(np.float64) @ weights)


def _batch(image: NDArray[np.generic]) -> Tensor:
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected an HWC RGB image, got shape {image.shape}")
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1), dtype=np.float64))[None]


def _pair_of_batches(output: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
    if output.shape != reference.shape:
        raise ValueError(
            f"images of different size: {tuple(output.shape)} and {tuple(reference.shape)}"
        )
    # float64: in float32 the variances of a 0..255 image cancel in the third digit
    return output.double(), reference.double()
