"""NIQE against values of a published implementation, and its properties."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage import data

from mirnet.evaluation.niqe import BLOCK, niqe


@pytest.mark.parametrize(
    ("photograph", "value"),
    [("astronaut", 3.0630520), ("coffee", 4.0561508), ("chelsea", 2.5720842)],
)
def test_values_of_a_published_implementation(photograph: str, value: float) -> None:
    """BasicSR 8d56e3a, its function ``niqe`` on the rounded luma."""
    assert niqe(getattr(data, photograph)()) == pytest.approx(value, abs=1e-4)


def test_noise_and_blur_raise_it_and_more_of_them_more() -> None:
    image = data.coffee()
    noisy = [niqe(_with_noise(image, sigma)) for sigma in (0, 10, 30)]
    blurred = [niqe(gaussian_filter(image, (sigma, sigma, 0))) for sigma in (0, 1.5, 4)]
    assert noisy == sorted(noisy) and noisy[0] + 1 < noisy[-1]
    assert blurred == sorted(blurred) and blurred[0] + 1 < blurred[-1]


def test_incomplete_blocks_at_the_right_and_the_bottom_do_not_count() -> None:
    image = data.chelsea()[: 2 * BLOCK, : 3 * BLOCK]
    wider = np.pad(image, ((0, 40), (0, 50), (0, 0)))
    assert niqe(wider) == niqe(image)


@pytest.mark.parametrize("shape", [(1, 1), (BLOCK, BLOCK), (50, 1000)])
def test_no_value_for_less_than_two_blocks(shape: tuple[int, int]) -> None:
    assert np.isnan(niqe(_noise(*shape)))


def test_no_value_without_contrast() -> None:
    assert np.isnan(niqe(np.full((3 * BLOCK, 3 * BLOCK, 3), 40, np.uint8)))


def test_blocks_without_contrast_do_not_spoil_the_others() -> None:
    image = data.coffee()[: 3 * BLOCK, : 4 * BLOCK].copy()
    image[:BLOCK, :BLOCK] = 255
    assert np.isfinite(niqe(image))


def _with_noise(image: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, sigma, image.shape)
    return np.clip(np.rint(image + noise), 0, 255).astype(np.uint8)


def _noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
