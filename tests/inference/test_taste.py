"""A person's choices: how bright, how strong, how smooth."""

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mirnet.errors import UsageError
from mirnet.images import Image, Pixels
from mirnet.images.harm import compare
from mirnet.images.stats import measure, noise_sigma, to_luma, to_unit
from mirnet.inference import Enhancer
from mirnet.inference.enhancer import make_images
from mirnet.inference.light import bands, coded, exposed, linear, unit
from mirnet.inference.taste import finished
from mirnet.models import build
from mirnet.params import Taste, taste_of

EXPOSURES = ("-2", "-1", "-0.5", "-0.1", "auto", "+0.1", "+0.5", "+1", "+2")
STRENGTHS = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0, 1.01, 1.1, 1.3, 1.5)
DENOISES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)


@pytest.fixture(scope="module")
def scene() -> npt.NDArray[np.float32]:
    """Linear light, without noise: a ramp, coloured patches, an edge, a lamp."""
    rows, columns = np.mgrid[0:96, 0:128]
    light = (0.02 + 0.5 * columns / 128)[..., None] * np.array([1.0, 0.9, 0.8])
    light[20:40, 20:50] *= (1.0, 0.4, 0.2)
    light[50:80, 60:90] *= (0.3, 0.5, 1.0)
    light[60:90, 10:40] *= 0.2
    light[5:12, 100:110] = 0.98
    return light.astype(np.float32) + np.float32(0.001) * (rows % 2)[..., None]


@pytest.fixture(scope="module")
def low(scene: npt.NDArray[np.float32]) -> Pixels:
    """An eighth of the light, with noise."""
    noise = np.random.default_rng(0).normal(0, 1, scene.shape)
    dark = scene / 8 * (1 + 0.15 * noise) + 0.002 * noise
    return as_pixels(dark.astype(np.float32), np.uint16)


@pytest.fixture(scope="module")
def high(scene: npt.NDArray[np.float32]) -> Pixels:
    """What a good network makes of it."""
    return as_pixels(scene, np.uint16)


@pytest.fixture(scope="module")
def enhancer() -> Enhancer:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return Enhancer(build("mirnet-xs", n_feat=8).eval(), precision="float32", compile=False)


def as_pixels(light: npt.NDArray[np.float32], dtype: type) -> Pixels:
    return (coded(light.clip(0, 1)) * np.iinfo(dtype).max).round().astype(dtype)


def brightness(pixels: Pixels) -> float:
    return float(to_luma(to_unit(pixels)).mean(dtype=np.float64))


def chroma_lines(pixels: Pixels) -> npt.NDArray[np.float64]:
    """Shares of the channels in linear light, which is what hue and saturation are made of."""
    light = linear(unit(pixels)).astype(np.float64)
    return np.asarray(light / light.sum(axis=2, keepdims=True).clip(1e-6))


def test_the_choices_have_one_spelling() -> None:
    spellings: dict[float | str, float | str] = {
        "auto": "auto",
        0.45: 0.45,
        "0.45": 0.45,
        "+0.5": "+0.5 stops",
        "+0.5 stops": "+0.5 stops",
        "0.5 stop": "+0.5 stops",
        "-1 stop": "-1.0 stops",
        -1: "-1.0 stops",
        "+0": "auto",
        "+1e-3": "+0.001 stops",
    }
    for given, wanted in spellings.items():
        taste = taste_of(1, given, 1)
        assert taste.exposure == wanted
        assert taste_of(1, taste.exposure, 1) == taste
    assert taste_of(1, "-1.5", 1).stops == -1.5
    assert taste_of(1, 0.3, 1).target == 0.3
    assert Taste().plain and taste_of(0.5, "auto", 1).plain
    assert not taste_of(1.1, "auto", 1).plain and not taste_of(1, "auto", 0.9).plain


@pytest.mark.parametrize("exposure", [0, 1, 2, "1", "bright", "", "+9", "-8.5 stops", "nan", True])
def test_other_exposures_are_refused_in_one_line(enhancer: Enhancer, exposure: object) -> None:
    with pytest.raises(UsageError, match=r"exposure .*: write auto, a mean brightness") as caught:
        enhancer(np.zeros((8, 8, 3), np.uint8), exposure=exposure)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("denoise", [-0.1, 1.1, float("nan")])
def test_other_shares_of_grain_are_refused(enhancer: Enhancer, denoise: float) -> None:
    with pytest.raises(UsageError, match=r"denoise .*: Input should be"):
        enhancer(np.zeros((8, 8, 3), np.uint8), denoise=denoise)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("strength", STRENGTHS),
        ("exposure", EXPOSURES),
        ("exposure", tuple(np.arange(0.1, 0.9, 0.1))),
    ],
)
def test_brightness_rises_with_the_choice(
    low: Pixels, high: Pixels, name: str, values: tuple[float | str, ...]
) -> None:
    choices = [{"strength": 1.0, "exposure": "auto", "denoise": 1.0} | {name: v} for v in values]
    means = [brightness(finished(low, high, taste_of(**choice))) for choice in choices]  # type: ignore[arg-type]
    assert all(np.diff(means) > 0)


@pytest.mark.parametrize("denoise", [1.0, 0.3])
@pytest.mark.parametrize("name", ["strength", "exposure", "denoise"])
def test_a_small_change_of_a_choice_is_a_small_change_of_the_image(
    low: Pixels, high: Pixels, name: str, denoise: float
) -> None:
    """Also at the ends of the ways through the code: 1, auto and 1."""
    all_steps: dict[str, list[Any]] = {
        "strength": [0.0, 0.01, 0.5, 0.51, 0.99, 1.0, 1.01, 1.49, 1.5],
        "exposure": ["-0.02", "auto", "+0.02"],
        "denoise": [0.0, 0.01, 0.5, 0.51, 0.99, 1.0],
    }
    steps, made = all_steps[name], {}
    for value in steps:
        choice = {"strength": 1.0, "exposure": "auto", "denoise": denoise} | {name: value}
        made[value] = finished(low, high, taste_of(**choice)).astype(float) / 65535  # type: ignore[arg-type]
    for first, second in itertools.pairwise(steps):
        if name == "exposure" or second - first < 0.02:
            assert np.abs(made[second] - made[first]).max() < 0.02


@pytest.mark.parametrize("target", [0.2, 0.45, 0.7])
def test_a_target_is_met(low: Pixels, high: Pixels, target: float) -> None:
    for denoise in (1.0, 0.0):
        made = finished(low, high, taste_of(1, target, denoise))
        assert measure(made).luminance == pytest.approx(target, abs=0.002)


def test_a_target_out_of_reach_is_approached(low: Pixels) -> None:
    black = np.zeros_like(low)
    assert not finished(black, black, taste_of(1, 0.5, 1)).any()
    blue = np.zeros_like(low)
    blue[..., 2] = 60000
    made = finished(blue, blue, taste_of(1, 0.5, 1))
    assert (made[..., :2] == 0).all() and made[..., 2].min() > 60000


def test_stops_are_exposure_in_the_shadows() -> None:
    dark = np.full((4, 4, 3), 0.002, np.float32)
    assert exposed(dark, 2) / dark == pytest.approx(2, rel=0.01)
    values = np.linspace(0, 1, 300, dtype=np.float32).reshape(10, 10, 3)
    assert exposed(exposed(values, 2), 3) == pytest.approx(exposed(values, 6), abs=1e-6)
    assert exposed(exposed(values, 4), 0.25) == pytest.approx(values, abs=1e-6)


@pytest.mark.parametrize("choice", [{"exposure": "+3"}, {"exposure": "-3"}, {"strength": 1.5}])
def test_no_clipping_and_no_other_hue(
    low: Pixels, high: Pixels, choice: dict[str, float | str]
) -> None:
    chosen: dict[str, float | str] = {"strength": 1.0, "exposure": "auto", "denoise": 1.0}
    made = finished(low, high, taste_of(**(chosen | choice)))  # type: ignore[arg-type]
    assert (made == 65535).sum() <= (high == 65535).sum()
    assert (made == 0).sum() <= (high == 0).sum()
    visible = high.max(axis=2) > 2000
    assert np.abs(chroma_lines(made) - chroma_lines(high))[visible].max() < 0.005
    change = compare(high, made)
    assert change.order == 0 and change.tinted < 0.01


def test_grain_is_that_of_the_input_at_the_new_brightness(
    scene: npt.NDArray[np.float32], low: Pixels, high: Pixels
) -> None:
    """Relative to the light, the noise of a flat part is that of the input; edges stay sharp."""
    flat = np.s_[50:90, 92:126]

    def relative(pixels: Pixels, clean: npt.NDArray[Any]) -> float:
        light = linear(unit(pixels))[flat] / clean[flat]
        return float((light / light.mean()).std())

    levels = [relative(finished(low, high, taste_of(1, "auto", d)), scene) for d in DENOISES]
    assert levels[0] == pytest.approx(relative(low, scene / 8), rel=0.15)
    assert all(np.diff(levels) < 0)
    assert levels[-1] < 0.01
    grainy = finished(low, high, taste_of(1, "auto", 0))
    assert brightness(grainy) == pytest.approx(brightness(high), rel=0.03)
    # on both sides of the edge of the dark patch, means over rows
    light = linear(unit(grainy))[65:85].mean(axis=(0, 2))
    clean = linear(unit(high))[65:85].mean(axis=(0, 2))
    assert light[36:44] == pytest.approx(clean[36:44], rel=0.25)


def test_an_output_that_is_the_input_exposed_has_its_grain_already(low: Pixels) -> None:
    bright = as_pixels(linear(unit(low)) * 4, np.uint16)
    grainy = finished(low, bright, taste_of(1, "auto", 0))
    assert noise_sigma(to_luma(to_unit(grainy))) == pytest.approx(
        noise_sigma(to_luma(to_unit(bright))), rel=0.2
    )


def test_bands_leave_no_seams(low: Pixels, high: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    taste = taste_of(1.2, 0.5, 0.2)
    whole = finished(low, high, taste)
    monkeypatch.setattr("mirnet.inference.light._BAND_PIXELS", 128 * 11)
    monkeypatch.setattr("mirnet.inference.light._MIN_ROWS", 1)
    assert len(list(bands(96, 128))) == 9
    parts = finished(low, high, taste)
    assert np.abs(whole.astype(int) - parts.astype(int)).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 1), (1, 37), (37, 1), (33, 46)])
def test_any_size_and_depth(enhancer: Enhancer, size: tuple[int, int], dtype: type) -> None:
    noise = np.random.default_rng(0).integers(0, np.iinfo(dtype).max // 4, (*size, 3))
    pixels: Pixels = noise.astype(dtype)
    out = enhancer(pixels, 1.3, exposure="+0.5", denoise=0.5)
    assert (out.shape, out.dtype) == (pixels.shape, pixels.dtype)
    assert np.array_equal(enhancer(pixels, 0, exposure=0.5, denoise=0), pixels)


def test_defaults_are_the_bytes_of_before(enhancer: Enhancer) -> None:
    pixels = np.random.default_rng(0).integers(0, 90, (24, 32, 3), np.uint8)
    plain = enhancer(pixels)
    assert np.array_equal(enhancer(pixels, 1.0, exposure="auto", denoise=1.0), plain)
    assert np.array_equal(enhancer(pixels, exposure="+0"), plain)
    close = enhancer(pixels, 1.0001, denoise=0.9999).astype(int)
    assert np.abs(close - plain).max() <= 1


def test_grey_stays_grey_and_alpha_stays(enhancer: Enhancer) -> None:
    grey = np.random.default_rng(0).integers(0, 90, (12, 16, 1), np.uint8).repeat(3, axis=2)
    alpha = np.arange(192, dtype=np.uint8).reshape(12, 16)
    image = Image(grey, alpha=alpha, grey=True)
    out = enhancer.enhance_image(image, 1.2, exposure=0.4, denoise=0.5)
    assert out.alpha is alpha and out.grey
    assert np.array_equal(out.pixels[..., 0], out.pixels[..., 1])
    assert np.array_equal(out.pixels[..., 0], out.pixels[..., 2])
    assert not np.array_equal(out.pixels, enhancer.enhance_image(image).pixels)


def test_alone_and_in_a_batch_and_what_is_judged(enhancer: Enhancer) -> None:
    images = [
        Image(np.random.default_rng(n).integers(0, 90, (24, 32, 3), np.uint8)) for n in range(3)
    ]
    taste = taste_of(1.4, 0.6, 0.5)
    made = make_images(enhancer, images[:1], taste)
    alone = enhancer.enhance_image(images[0], 1.4, exposure=0.6, denoise=0.5).pixels
    assert np.array_equal(made[0].image.pixels, alone)
    assert np.array_equal(enhancer(images[0].pixels, 1.4, exposure=0.6, denoise=0.5), alone)
    assert np.abs(made[0].own.astype(int) - enhancer(images[0].pixels)).max() <= 1
    batching = Enhancer(build("mirnet-xs", n_feat=8).eval(), precision="float32", compile=False)
    batching.fix_shapes([(24, 32)])
    assert batching.batch_size(24, 32) == 4
    together = batching.enhance_images(images, 1.4, exposure=0.6, denoise=0.5)
    again = make_images(batching, images[::-1], taste)
    for first, second in zip(together, again[::-1], strict=True):
        assert np.array_equal(first.pixels, second.image.pixels)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_tiles_show_no_seams(precision: str) -> None:
    """Of a network without statistics of the whole, to a level."""
    torch.manual_seed(0)
    enhancer = Enhancer(build("zerodce").eval(), precision=precision, compile=False)  # type: ignore[arg-type]
    pixels = np.random.default_rng(0).integers(0, 90, (90, 130, 3), np.uint8)
    whole = enhancer(pixels, 1.2, exposure=0.5, denoise=0.5).astype(int)
    enhancer.max_pixels = 64 * 64
    assert enhancer.tile_shape(90, 130) is not None
    tiled = enhancer(pixels, 1.2, exposure=0.5, denoise=0.5).astype(int)
    assert np.abs(whole - tiled).max() <= (1 if precision == "float32" else 3)
