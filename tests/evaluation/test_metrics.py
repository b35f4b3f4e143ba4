from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data
from torchmetrics.functional.image import (
    peak_signal_noise_ratio,
    structural_similarity_index_measure,
)

from mirnet.evaluation import defects, metrics


def noise_pair(seed: int, shape: tuple[int, int, int]) -> tuple[NDArray[np.uint8], ...]:
    rng = np.random.default_rng(seed)
    smooth = np.cumsum(np.cumsum(rng.normal(size=shape), axis=0), axis=1)
    reference = (smooth - smooth.min()) / np.ptp(smooth) * 255
    output = reference + rng.normal(0, 12, size=shape)
    return tuple(np.clip(a, 0, 255).astype(np.uint8) for a in (output, reference))


def batch(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].double()


@pytest.mark.parametrize("shape", [(12, 40, 3), (64, 48, 3), (97, 31, 3)])
def test_equals_a_second_implementation(shape: tuple[int, int, int]) -> None:
    """torchmetrics means SSIM over a reflect-padded map: its border is cut here."""
    output, reference = noise_pair(1, shape)
    x, y = batch(output), batch(reference)
    assert metrics.psnr(output, reference) == pytest.approx(
        float(peak_signal_noise_ratio(x, y, data_range=255.0)), abs=1e-6
    )
    _, full = structural_similarity_index_measure(x, y, data_range=255.0, return_full_image=True)
    expected = float(full[..., 5:-5, 5:-5].mean())
    assert metrics.ssim(output, reference) == pytest.approx(expected, abs=1e-7)


def test_ms_ssim_equals_a_second_implementation() -> None:
    output, reference = noise_pair(4, (176, 195, 3))
    x, y = batch(output), batch(reference)
    expected = 1.0
    for scale, weight in enumerate(metrics.MS_SSIM_WEIGHTS):
        _, contrast = structural_similarity_index_measure(
            x, y, data_range=255.0, return_contrast_sensitivity=True
        )
        _, full = structural_similarity_index_measure(
            x, y, data_range=255.0, return_full_image=True
        )
        term = full[..., 5:-5, 5:-5].mean() if scale == 4 else contrast.mean()
        expected *= float(term) ** weight
        x, y = (torch.nn.functional.avg_pool2d(z, 2) for z in (x, y))
    assert metrics.ms_ssim(output, reference) == pytest.approx(expected, abs=1e-6)
    assert math.isnan(metrics.ms_ssim(output[:175], reference[:175]))


def test_psnr_by_hand() -> None:
    reference = np.zeros((16, 16, 3), np.uint8)
    output = np.full((16, 16, 3), 10, np.uint8)
    assert metrics.psnr(output, reference) == pytest.approx(20 * math.log10(25.5))
    assert metrics.psnr(reference, reference) == 100


def test_ssim_of_flat_images_by_hand() -> None:
    a, b, c1 = 100.0, 150.0, (0.01 * 255) ** 2
    first, second = (np.full((20, 20, 3), v, np.uint8) for v in (a, b))
    assert metrics.ssim(first, second) == pytest.approx((2 * a * b + c1) / (a * a + b * b + c1))


def test_range_is_never_inferred() -> None:
    """The '65 dB' mistake: images in [0, 1] scored with peak 255 gain 48.13 dB."""
    output, reference = (a / 255.0 for a in noise_pair(2, (32, 32, 3)))
    honest = metrics.psnr(output, reference, data_range=1.0)
    assert metrics.psnr(output, reference, data_range=255.0) - honest == pytest.approx(
        48.13, abs=0.01
    )


def test_to_uint8_clamps_and_rounds() -> None:
    values = torch.tensor([-0.5, 0.0, 0.5 / 255 + 1e-6, 0.999, 1.7])
    assert metrics.to_uint8(values).tolist() == [0, 0, 1, 255, 255]


def test_gt_mean_restores_a_scaled_image() -> None:
    _, reference = noise_pair(3, (32, 32, 3))
    halved = reference / 2.0
    assert np.allclose(metrics.gt_mean(halved, reference), reference)


def test_refuses_different_sizes() -> None:
    with pytest.raises(ValueError, match="different size"):
        metrics.psnr(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(ValueError, match="11 pixels"):
        metrics.ssim(np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8))


def test_colourfulness_does_not_depend_on_the_light() -> None:
    pixels = data.astronaut()[100:300, 100:300]
    bright = defects.colourfulness(pixels)
    assert defects.colourfulness((pixels * 0.2).astype(np.uint8)) == pytest.approx(bright, rel=0.03)
    grey = np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    assert defects.colourfulness(grey) == 0
    assert (
        0.2 * bright < defects.colourfulness((0.7 * grey + 0.3 * pixels).astype(np.uint8)) < bright
    )
