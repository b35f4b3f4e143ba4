"""Classical enhancements: values by hand, and what each is known for."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.evaluation import classical
from mirnet.evaluation.baselines import baseline


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return np.asarray(
        Image.open(photograph_path(PHOTOGRAPHS[0])).convert("RGB").resize((96, 72)), np.uint8
    )


def flat(value: int) -> NDArray[np.uint8]:
    return np.full((40, 56, 3), value, np.uint8)


def test_lime_of_an_even_image_by_hand() -> None:
    """The map equals the image: v / v ** 0.8 = v ** 0.2."""
    expected = round(255 * (16 / 255) ** 0.2)
    assert set(np.unique(baseline("lime")(flat(16)))) == {expected}


def test_lime_smooths_light_within_areas_and_keeps_their_border() -> None:
    """The texture stays, most of the step of light goes."""
    rng = np.random.default_rng(0)
    values = np.where(np.arange(80) < 40, 20, 100) * rng.uniform(0.8, 1.0, (60, 80))
    image = np.repeat(np.rint(values)[..., None], 3, axis=2).astype(np.uint8)
    output = baseline("lime")(image).astype(float)
    left, right = output[:, 2:34].mean(), output[:, 46:78].mean()
    assert right / left < 2.5, "5 before"
    assert output[:, 2:34].std() / left > 0.03, "texture is kept"


def test_lime_of_a_large_image_solves_for_a_reduced_one(
    photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    dark = (photo // 4).astype(np.uint8)
    whole, sizes, solve = baseline("lime")(dark), [], classical._smoothed

    def counted(light: NDArray[np.float64]) -> NDArray[np.float64]:
        sizes.append(light.size)
        return solve(light)

    monkeypatch.setattr(classical, "_LIME_PIXELS", dark.shape[0] * dark.shape[1] // 3)
    monkeypatch.setattr(classical, "_smoothed", counted)
    reduced = baseline("lime")(dark)
    assert max(sizes) <= classical._LIME_PIXELS
    assert np.abs(reduced.astype(int) - whole).mean() < 0.05 * whole.mean()
    thin = np.full((1, 10_000, 3), 16, np.uint8)
    assert set(np.unique(baseline("lime")(thin))) == {round(255 * (16 / 255) ** 0.2)}


@pytest.mark.parametrize("value", [0, 16, 255])
def test_retinex_leaves_even_channels_as_they_are(value: int) -> None:
    assert np.array_equal(baseline("retinex")(flat(value)), flat(value))
    tinted = flat(value)
    tinted[..., 1] = 90
    assert np.array_equal(baseline("retinex")(tinted), tinted)


def test_inverted_dehazing_by_hand() -> None:
    """An even image is the airlight itself and stays; beside light, darkness is lifted."""
    assert np.array_equal(baseline("inverted-dehazing")(flat(30)), flat(30))
    image = flat(30)
    image[:, 28:] = 10
    # inverted 225 and 245; airlight 245; transmission 1 - 0.8 * 225 / 245 = 0.265 at the far left
    transmission = 1 - 0.8 * 225 / 245
    expected = round(255 - ((225 - 245) / (2 * transmission**2) + 245))
    assert set(np.unique(baseline("inverted-dehazing")(image)[:, :20])) == {expected}


def test_retinex_does_not_see_the_level_of_the_light(photo: NDArray[np.uint8]) -> None:
    half = (photo // 4 * 2).astype(np.uint8)
    bright, dark = (baseline("retinex")(image).astype(float) for image in (photo // 4 * 4, half))
    assert np.abs(bright - dark).mean() < (photo.mean() - half.mean()) / 4


def test_unsharp_masking_sharpens_edges_and_leaves_even_areas(photo: NDArray[np.uint8]) -> None:
    assert np.array_equal(baseline("adaptive-unsharp")(flat(90)), flat(90))
    soft = np.asarray(Image.fromarray(photo).resize((192, 144), Image.Resampling.BICUBIC))
    sharp = baseline("adaptive-unsharp")(soft)
    steps = [np.abs(np.diff(image.astype(float), axis=1)).mean() for image in (soft, sharp)]
    assert steps[1] > 1.1 * steps[0]
    assert abs(sharp.mean() - soft.mean()) < 1


def test_darkness_is_lifted(photo: NDArray[np.uint8]) -> None:
    dark = (photo // 8).astype(np.uint8)
    for name in ("retinex", "lime", "inverted-dehazing"):
        assert baseline(name)(dark).mean() > 2 * dark.mean(), name
