"""The parts of the squared error: they add up, and a planted fault is found under its name."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data

from mirnet.evaluation.anatomy import PARTS, dissect, means_by_darkness
from mirnet.evaluation.metrics import psnr
from mirnet.evaluation.slices import DARKNESS, thirds

Image = NDArray[np.uint8]


@pytest.fixture(scope="module")
def photograph() -> Image:
    """A part of a photograph with detail, even areas and colours, 240 x 328, mid-grey."""
    return np.asarray(data.astronaut()[20:260, 100:428] * 0.7 + 30).astype(np.uint8)


def _eight_bit(values: NDArray[np.floating]) -> Image:
    return values.round().clip(0, 255).astype(np.uint8)


def _vignette(image: Image) -> Image:
    rows, columns = np.indices(image.shape[:2])
    height, width = image.shape[:2]
    distance = ((rows / height - 0.5) ** 2 + (columns / width - 0.5) ** 2)[..., None]
    return _eight_bit(image * (1.15 - 0.9 * distance))


def _noisy(image: Image) -> Image:
    return _eight_bit(image + np.random.default_rng(0).normal(0, 12, image.shape))


@pytest.mark.parametrize(
    ("part", "spoil"),
    [
        ("brightness", lambda i: _eight_bit(i * 0.7)),
        ("colour", lambda i: _eight_bit(i * np.array([1.2, 1.0, 0.8]) + 2)),
        ("colour", lambda i: _eight_bit(i.mean(2, keepdims=True) * 0.7 + i * 0.3)),
        ("tone", _vignette),
        ("detail", lambda i: _eight_bit(ndimage.gaussian_filter(i.astype(float), (1.5, 1.5, 0)))),
        ("noise", _noisy),
    ],
    ids=["darker", "tinted", "pale", "vignette", "blurred", "noisy"],
)
def test_a_planted_fault_is_the_largest_part(
    part: str, spoil: Callable[[Image], Image], photograph: Image
) -> None:
    found = dissect(spoil(photograph), photograph)
    shares = {name: getattr(found, name) / found.total for name in PARTS}
    assert shares[part] > 0.75, shares


@given(
    height=st.integers(1, 50),
    width=st.integers(1, 50),
    seed=st.integers(0, 99),
    low=st.integers(0, 255),
    same=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_parts_are_never_negative_and_add_up(
    height: int, width: int, seed: int, low: int, same: bool
) -> None:
    generator = np.random.default_rng(seed)
    first = generator.integers(low, 256, (height, width, 3), dtype=np.uint8)
    second = first if same else generator.integers(0, 256 - low, first.shape, dtype=np.uint8)
    found = dissect(first, second)
    assert all(getattr(found, name) >= 0 for name in PARTS)
    error = np.square(first.astype(float) - second).mean()
    assert found.total == pytest.approx(error, rel=1e-6, abs=1e-6)


def test_noise_does_not_look_like_colour_or_tone(photograph: Image) -> None:
    """A factor fitted to noisy pixels would shrink them towards the mean."""
    found = dissect(_noisy(_eight_bit(photograph * 0.6)), photograph)
    darker = dissect(_eight_bit(photograph * 0.6), photograph)
    assert found.brightness == pytest.approx(darker.brightness, rel=0.02)
    assert found.noise == pytest.approx(12**2, rel=0.05)


def test_the_total_is_that_of_psnr(photograph: Image) -> None:
    noisy = _noisy(photograph)
    total = dissect(noisy, photograph).total
    assert psnr(noisy, photograph) == pytest.approx(10 * np.log10(255**2 / total))


def test_thirds_by_the_light_of_the_dark_image() -> None:
    scores = pd.DataFrame(
        {"low_luma": [9.0, 1, 5, 2, 8, 4, 4]} | {f"error_{part}": range(7) for part in PARTS}
    )
    masks = thirds(scores["low_luma"])
    assert [list(scores["low_luma"][masks[name]]) for name in DARKNESS] == [
        [1, 2, 4],
        [5, 4],
        [9, 8],
    ]
    means = means_by_darkness(scores)
    assert means["error_tone_darkest"] == pytest.approx((1 + 3 + 5) / 3)
    assert len(means) == len(DARKNESS) * len(PARTS)
    assert means_by_darkness(scores.head(5)) == {}
