"""Outputs against inputs: each kind of harm made on purpose, and what honest enhancement does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mirnet.batch.guard import harm_limits, is_bright
from mirnet.images import read_rgb
from mirnet.images.harm import Change, Harm, HarmLimits, compare, find_harm, judge
from mirnet.images.stats import noise_sigma, regions, shadows
from mirnet.params import EnhanceParams

LIMITS = harm_limits(EnhanceParams())
OFF: HarmLimits = {}


def scene(*, height: int = 120, width: int = 180, seed: int = 0) -> NDArray[np.float64]:
    """Dark ground, mid-tone walls, a bright neutral sky, a lamp; in [0, 1]."""
    chance = np.random.default_rng(seed)
    pixels = np.empty((height, width, 3))
    pixels[: height // 3] = 0.75  # sky
    pixels[height // 3 : 2 * height // 3] = [0.30, 0.25, 0.20]
    pixels[2 * height // 3 :] = [0.05, 0.06, 0.05]
    pixels[height // 2 : height // 2 + 20, 10:40] = 0.95  # lamp
    texture = chance.normal(0, 0.004, (height, width, 1))
    return np.asarray(np.clip(pixels + texture, 0, 1))


def coded(
    pixels: NDArray[np.float64], bits: type[np.unsignedinteger] = np.uint8
) -> NDArray[np.unsignedinteger]:
    top = np.iinfo(bits).max
    return np.asarray(np.round(np.clip(pixels, 0, 1) * top), dtype=bits)


def kind_of(before: NDArray[np.float64], after: NDArray[np.float64]) -> str | None:
    """The same in 8 and in 16 bits."""
    found = [
        judge(coded(before, bits), coded(after, bits), LIMITS) for bits in (np.uint8, np.uint16)
    ]
    kinds = {None if harm is None else harm.kind for harm in found}
    assert len(kinds) == 1, found
    return kinds.pop()


def tone(pixels: NDArray[np.float64], points: dict[float, float]) -> NDArray[np.float64]:
    return np.interp(pixels, list(points), list(points.values()))


@pytest.mark.parametrize("gamma", [0.3, 0.5, 0.8])
def test_honest_brightening_is_no_harm(gamma: float) -> None:
    assert kind_of(scene(), scene() ** gamma) is None
    dark = 0.2 * scene()
    assert kind_of(dark, dark**gamma) is None


def test_the_input_itself_is_no_harm() -> None:
    change = compare(coded(scene()), coded(scene()))
    assert change.darker == change.dimmed == change.order == change.tinted == change.clipped == 0
    assert change.noisier <= 0
    assert kind_of(scene(), scene()) is None


@pytest.mark.parametrize(
    ("kind", "after"),
    [
        ("darker", scene() ** 1.2),
        ("darker", 0.98 * scene()),
        # greener, which counts most in luma, and darker on the whole
        ("darker", scene() * [0.8, 1.1, 0.8]),
        # the ground becomes brighter, so does the mean, and the sky is lost
        ("dimmed", tone(scene(), {0: 0, 0.06: 0.5, 0.3: 0.6, 0.75: 0.62, 1: 1})),
        # the lamp comes out darker than the sky
        ("order", tone(scene(), {0: 0, 0.3: 0.6, 0.75: 0.9, 0.94: 0.8, 0.95: 0.7, 1: 0.7})),
        # white turns olive, not darker
        ("tinted", np.where(scene() > 0.7, scene() * [1.1, 1.1, 0.8], scene() + 0.05)),
        ("clipped", 1.4 * scene() + 0.05),
        ("noisier", scene() + 0.05 + np.random.default_rng(1).normal(0, 0.03, (120, 180, 1))),
    ],
)
def test_each_harm_is_named(kind: str, after: NDArray[np.float64]) -> None:
    assert kind_of(scene(), after) == kind


def test_a_negative_of_a_dark_picture_is_turned_round() -> None:
    """All of its luma lies below 0.2: the order counts within the range that it has."""
    dark = 0.2 * scene()
    assert kind_of(dark, 0.8 - 3 * dark) == "order"


def test_whites_that_burn_out_are_not_set_off_by_lifted_blacks() -> None:
    before = scene()
    before[60:] = 0
    change = compare(coded(before), coded(before * 1.4 + 0.1))
    assert change.clipped == pytest.approx(1 / 3, abs=0.02)


def test_a_black_bar_across_a_dark_picture_is_dimmed() -> None:
    before = np.full((160, 160, 3), 30, dtype=np.uint8)  # luma 0.12
    after = np.full_like(before, 120)
    after[:20] = 0
    change = compare(before, after)
    assert change.darker < 0
    assert change.dimmed == pytest.approx(1 / 8, abs=0.03)
    after[:20] = 16  # not halved
    assert compare(before, after).dimmed == 0


def test_figures_by_hand() -> None:
    before = np.zeros((32, 32, 3), dtype=np.uint8)
    before[:16] = 200
    before[16:] = 100
    after = before.copy()
    after[:16] = [250, 100, 100]
    change = compare(before, after)
    luma, values = (0.2126 * 250 + 0.7874 * 100) / 2 + 50, (450 / 3) / 2 + 50
    assert luma < values  # red counts less in luma
    assert change.darker == pytest.approx(1 - luma / 150, abs=1e-5)
    assert change.dimmed == 0.5
    assert change.order == 0  # 132 is still more than 100
    assert change.tinted == pytest.approx(150 / 255, abs=1e-5)
    after[:16] = 80
    assert compare(before, after).order == pytest.approx(20 / 255, abs=1e-5)


@pytest.mark.parametrize(
    "shape", [(1, 1, 3), (1, 7, 3), (5, 1, 3), (2, 2, 3), (17, 16, 3), (1, 1), (40, 30)]
)
def test_any_shape(shape: tuple[int, ...]) -> None:
    chance = np.random.default_rng(0)
    before = chance.integers(40, 60, shape, dtype=np.uint8)
    assert judge(before, before, LIMITS) is None
    halved = judge(before, before // 2, LIMITS)
    assert halved is not None
    assert halved == Harm("darker", halved.value, 0.0)
    assert halved.value == pytest.approx(0.5, abs=0.02)
    brighter = judge(before, before * 2, LIMITS)
    assert brighter is None or brighter.kind == "noisier"
    black = np.zeros(shape, dtype=np.uint8)
    assert judge(black, black, LIMITS) is None
    assert compare(black, before).darker == 0


def test_large_pictures_are_measured_on_a_grid() -> None:
    small = coded(scene())
    large = np.kron(small, np.ones((8, 8, 1), dtype=np.uint8))
    of_small, of_large = compare(small, small // 2), compare(large, large // 2)
    assert of_large.darker == pytest.approx(of_small.darker, abs=0.01)
    assert of_large.clipped == pytest.approx(of_small.clipped, abs=0.01)


def test_limits_can_be_switched_off() -> None:
    before, after = coded(scene()), coded(scene() ** 1.5)
    assert judge(before, after, OFF) is None
    params = EnhanceParams(max_darkening=None, max_dimmed_share=None)
    assert judge(before, after, harm_limits(params)) is None
    change = Change(0.5, 0, 0.5, 0, 0, 0)
    assert find_harm(change, LIMITS) == Harm("darker", 0.5, 0.0)
    assert find_harm(change, {"order": 0.1}) == Harm("order", 0.5, 0.1)
    assert Harm("order", 0.5, 0.1).reason == "harm: order"


def test_another_size_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"output is \(2, 2\), the input \(4, 4\)"):
        judge(np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2, 3), np.uint8), LIMITS)


def test_shadows_look_at_dark_parts() -> None:
    bright = np.full((160, 160, 3), 200, dtype=np.uint8)
    assert shadows(bright) == pytest.approx(200 / 255, abs=1e-6)
    subject = bright.copy()
    subject[40:100, 40:100] = 10  # 14 % of the image, before a bright sky
    assert subject.mean() / 255 > 0.65
    assert not is_bright(shadows(subject), EnhanceParams())
    lines = bright.copy()
    lines[:, ::10] = 0  # a tenth of the pixels as well, but no dark part
    assert is_bright(shadows(lines), EnhanceParams())
    assert not is_bright(1.0, EnhanceParams(pass_luminance=None))


def test_regions_by_hand() -> None:
    luma = np.zeros((32, 16), dtype=np.float32)
    luma[:2, :2] = [[0.1, 0.2], [0.3, 0.4]]
    means = regions(luma)
    assert means.shape == (16 * 8,)
    assert means[0] == pytest.approx(0.25)
    assert means[1:].sum() == 0
    assert regions(np.ones((1, 40), np.float32)).shape == (40,)


def test_noise_of_known_strength() -> None:
    noise = np.random.default_rng(0).normal(0.5, 0.03, (200, 200)).astype(np.float32)
    assert noise_sigma(noise) == pytest.approx(0.03, rel=0.05)


def test_references_of_lol_are_no_harm_and_no_low_is_bright(lol_dir: Path) -> None:
    """But for one, whose reference was taken with another lamp on."""
    harmed = {}
    for path in sorted((lol_dir / "our485" / "low").glob("*.png")):
        low, high = read_rgb(path), read_rgb(path.parents[1] / "high" / path.name)
        assert not is_bright(shadows(low), EnhanceParams()), path.name
        if harm := judge(low, high, LIMITS):
            harmed[path.name] = harm.kind
    assert harmed == {"590.png": "order"}
