from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage
from skimage.color import deltaE_ciede2000

from mirnet.errors import DataError, UsageError
from mirnet.evaluation import defects, metrics
from mirnet.evaluation.baselines import BASELINES, baseline
from mirnet.evaluation.scoring import add_gains, score_pairs
from mirnet.params import EvaluateParams
from tests.evaluation.images import bright_picture, dark_pairs

FAST = EvaluateParams(bootstrap_samples=200)


def test_a_row_an_image_and_method_and_means_of_them() -> None:
    pairs = dark_pairs(4)
    outputs: dict[tuple[str, str], NDArray[np.uint8]] = {}
    methods = {name: BASELINES[name] for name in ("input", "gamma")}
    scores, summary = score_pairs(pairs, methods, FAST, outputs=outputs)
    assert len(scores) == 8 and set(summary) == {"input", "gamma"}
    gamma = scores[scores["method"] == "gamma"]
    expected = [metrics.psnr(BASELINES["gamma"](low), high) for _, low, high in pairs]
    assert gamma["psnr"].tolist() == pytest.approx(expected)
    score = summary["gamma"]
    assert score.psnr == pytest.approx(np.mean(expected))
    assert score.psnr_interval[0] < score.psnr < score.psnr_interval[1]
    assert score.num_images == 4
    assert score.extra["gt_mean_psnr"] > score.psnr
    assert "ms_ssim" not in score.extra, "48 pixels are too few for five scales"
    assert np.array_equal(outputs["eval15/2.png", "input"], pairs[2][1])


def test_a_figure_that_some_images_lack_has_no_mean() -> None:
    """MS-SSIM over the large half of the images would stand beside figures of all of them."""
    large = [(f"large/{id_}", low, high) for id_, low, high in dark_pairs(2, side=192)]
    methods = {"gamma": BASELINES["gamma"]}
    _, summary = score_pairs(large, methods, FAST)
    assert 0 < summary["gamma"].extra["ms_ssim"] <= 1
    _, mixed = score_pairs([*large, *dark_pairs(2)], methods, FAST)
    assert "ms_ssim" not in mixed["gamma"].extra
    assert mixed["gamma"].num_images == 4


def test_gains_are_paired_and_over_every_other_method() -> None:
    methods = {name: BASELINES[name] for name in ("input", "gamma", "equalize")}
    scores, summary = score_pairs(dark_pairs(6), methods, FAST)
    told = add_gains(scores, summary, "gamma", FAST)
    assert told["gamma"].gain is None
    for name in ("input", "equalize"):
        mean, low, high = told[name].gain or (0, 0, 0)
        assert mean == pytest.approx(summary["gamma"].psnr - summary[name].psnr)
        assert low < mean < high


def test_refuses_what_cannot_be_scored() -> None:
    with pytest.raises(DataError, match="split is empty"):
        score_pairs([], BASELINES, FAST)
    _, low, high = dark_pairs(1)[0]
    with pytest.raises(DataError, match=r"eval15/7\.png: low is"):
        score_pairs([("eval15/7.png", low[:20], high)], BASELINES, FAST)
    half = {"half": lambda pixels: pixels[::2]}
    with pytest.raises(DataError, match="half gave uint8"):
        score_pairs([("a", low, high)], half, FAST)


def test_baselines_by_hand() -> None:
    ramp = np.tile(np.array([[10, 60]], np.uint8)[..., None], (2, 1, 3))
    assert set(np.unique(baseline("autocontrast")(ramp))) == {0, 255}
    assert set(np.unique(baseline("autocontrast-tone")(ramp))) == {0, 255}
    expected = np.rint(255 * (np.array([10, 60]) / 255) ** 0.4)
    assert set(np.unique(baseline("gamma")(ramp))) == set(expected.astype(int))
    assert np.array_equal(baseline("input")(ramp), ramp)
    with pytest.raises(UsageError, match="no such baseline"):
        baseline("photoshop")


def test_autocontrast_of_a_tinted_picture_keeps_the_tint_only_with_preserve_tone() -> None:
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[..., 0] = np.linspace(0, 60, 32, dtype=np.uint8)
    picture[..., 2] = np.linspace(0, 20, 32, dtype=np.uint8)
    plain, kept = (baseline(n)(picture) for n in ("autocontrast", "autocontrast-tone"))
    red, blue = (int(plain[0, 8, channel]) for channel in (0, 2))
    assert red == pytest.approx(blue, abs=20), "each channel is stretched by itself: grey"
    red, blue = (int(kept[0, 8, channel]) for channel in (0, 2))
    assert red > 2 * blue


@pytest.mark.parametrize("name", sorted(BASELINES))
def test_every_baseline_keeps_size_and_type(name: str) -> None:
    low = dark_pairs(1)[0][1]
    output = baseline(name)(low)
    assert output.shape == low.shape and output.dtype == np.uint8
    if name != "input":
        black = np.zeros((24, 40, 3), np.uint8)
        assert baseline(name)(black).shape == black.shape
    for size in ((1, 1), (2, 1), (1, 7)):
        assert baseline(name)(low[: size[0], : size[1]]).shape == (*size, 3)


# Sharma, Wu and Dalal, 2005: Lab pairs and their published CIEDE2000
SHARMA = [
    ((50.0, 2.6772, -79.7751), (50.0, 0.0, -82.7485), 2.0425),
    ((50.0, -1.0, 2.0), (50.0, 0.0, 0.0), 2.3669),
    ((50.0, 2.5, 0.0), (73.0, 25.0, -18.0), 27.1492),
    ((60.2574, -34.0099, 36.2677), (60.4626, -34.1751, 39.4387), 1.2644),
    ((2.0776, 0.0795, -1.1350), (0.9033, -0.0636, -0.5514), 0.9082),
]


@pytest.mark.parametrize(("first", "second", "expected"), SHARMA)
def test_the_colour_difference_is_the_published_one(
    first: tuple[float, ...], second: tuple[float, ...], expected: float
) -> None:
    assert float(deltaE_ciede2000(first, second)) == pytest.approx(expected, abs=1e-4)


def test_colour_difference_of_pictures() -> None:
    grey, lighter = (np.full((4, 4, 3), value, np.uint8) for value in (119, 120))
    assert defects.ciede2000(grey, grey) == 0
    assert 0.2 < defects.ciede2000(lighter, grey) < 0.5, "one grey level of 255"
    assert defects.colour_cast(lighter, grey) == pytest.approx(0, abs=0.01)


def test_noise_is_found_without_a_reference() -> None:
    flat = np.full((200, 200, 3), 100.0)
    for sigma in (2.0, 8.0):
        # the same noise in all channels, so that the luma has it undamped
        noise = np.random.default_rng(0).normal(0, sigma, size=(200, 200, 1))
        noisy = np.rint(flat + noise).astype(np.uint8)
        assert defects.noise_sigma(noisy) == pytest.approx(sigma, rel=0.06)
        mask = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float64)
        response = ndimage.convolve(noisy @ [0.299, 0.587, 0.114], mask, mode="reflect")
        by_convolution = math.sqrt(math.pi / 2) / 6 * np.abs(response).mean()
        assert defects.noise_sigma(noisy) == pytest.approx(by_convolution, rel=1e-12)
    assert defects.noise_sigma(flat.astype(np.uint8)) == 0


def test_clipping_and_crushing_by_hand() -> None:
    picture = np.full((10, 10, 3), 100, np.uint8)
    picture[:2, :, 1] = 255
    picture[2:3] = 0
    assert defects.clipped_share(picture) == pytest.approx(0.2)
    assert defects.crushed_share(picture) == pytest.approx(0.1)


def test_sharpening_gives_a_halo_and_a_gain_does_not() -> None:
    reference = np.full((64, 64, 3), 60, np.uint8)
    reference[:, 32:] = 180
    brighter = np.clip(reference * 1.2, 0, 255).astype(np.uint8)
    ringing = reference.astype(float)
    ringing[:, 29:32] -= 40
    ringing[:, 32:35] += 40
    assert defects.halo(brighter, reference) < 1
    assert defects.halo(ringing.astype(np.uint8), reference) > 5


def test_luma_ratio_tells_dark_from_bright() -> None:
    high = bright_picture(0)
    pairs = [("a", (high * 0.5).astype(np.uint8), high), ("b", high, high)]
    scores, _ = score_pairs(pairs, {"input": BASELINES["input"]}, FAST)
    assert scores["luma_ratio"].tolist() == pytest.approx([0.5, 1.0], abs=0.01)
