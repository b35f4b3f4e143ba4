"""One scene is told from another one whatever the exposure, and how bright an image comes out."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from mirnet.images import Pixels, Seen, read_rgb
from mirnet.inference.light import mean_luma
from mirnet.inference.scene import _likeness, even_stops, seen
from mirnet.inference.taste import finished
from mirnet.params import Taste


def view(pixels: Pixels) -> Seen:
    return seen(pixels, pixels, 1.0)


def scene(seed: int, height: int = 120, width: int = 160) -> np.ndarray[tuple[int, ...], np.dtype]:
    """Linear light, of patches, over five stops."""
    patches = np.random.default_rng(seed).uniform(-7, -2, (6, 8, 1))
    return np.kron(2.0**patches, np.ones((height // 6, width // 8, 3)))


def shot(light: np.ndarray[tuple[int, ...], np.dtype], stops: float, bits: int = 8) -> Pixels:
    most = 2**bits - 1
    coded = np.clip(light * 2**stops, 0, 1) ** (1 / 2.2)
    noisy = coded + np.random.default_rng(1).normal(0, 0.004, light.shape)
    return (noisy.clip(0, 1) * most).round().astype(np.uint8 if bits == 8 else np.uint16)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("stops", [-1.5, -0.5, 0.5, 2])
def test_exposure_does_not_matter(stops: float, bits: int) -> None:
    one = view(shot(scene(1), 0))
    assert _likeness(one, view(shot(scene(1), stops, bits))) == 1
    for other in range(2, 30):
        assert _likeness(one, view(shot(scene(other), stops, bits))) == 0


def test_a_small_move_is_the_same_scene_and_a_turn_is_not() -> None:
    light = scene(1, 240, 320)
    one = view(shot(light, 0))
    assert _likeness(one, view(shot(np.roll(light, 4, axis=1), 0.5))) > 0.5
    assert _likeness(one, view(shot(light[::-1], 0))) == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (7, 3), (16, 16), (17, 300), (700, 500)])
def test_images_of_any_size(shape: tuple[int, int]) -> None:
    chance = np.random.default_rng(0)
    pixels = chance.integers(0, 60, (*shape, 3), dtype=np.uint8)
    found = view(pixels)
    assert len(found.thumbnail) == 256
    norm = np.linalg.norm(found.thumbnail)
    assert norm == pytest.approx(0 if pixels[..., 0].size == 1 else 1)


def test_a_flat_image_is_of_no_scene() -> None:
    black = view(np.zeros((40, 40, 3), np.uint8))
    assert _likeness(black, black) == 0 and black.brightness == 0


def test_an_image_comes_to_the_mean_of_its_scene() -> None:
    outputs = [shot(scene(1), stops, 16) for stops in (1.0, 2.0, 3.0)]
    other = view(shot(scene(2), 5))
    before = [view(outputs[0]), other, view(outputs[1])]
    stops = even_stops(outputs[2], view(outputs[2]), before)
    made = finished(np.zeros_like(outputs[2]), outputs[2], Taste(), even=stops)
    expected = np.mean([mean_luma(each) for each in outputs])
    assert stops < 0 and mean_luma(made) == pytest.approx(expected, abs=1e-3)
    assert even_stops(outputs[2], view(outputs[2]), [other]) == 0
    assert even_stops(outputs[2], view(outputs[2]), []) == 0


def test_two_stops_are_the_most() -> None:
    dark, bright = shot(scene(1), -3, 16), shot(scene(1), 2, 16)
    before = [view(bright)] * 4
    assert even_stops(dark, view(dark), before) == pytest.approx(2)


def test_what_is_mixed_with_its_input_counts_as_the_mixture() -> None:
    low, high = shot(scene(1), 0), shot(scene(1), 2)
    half = seen(low, high, 0.5).brightness
    assert half == pytest.approx((mean_luma(low) + mean_luma(high)) / 2)


def test_real_scenes(lol_dir: Path) -> None:
    """The pairs of one scene among 48 dark images, by the manifest of LoL, and no other ones."""
    images = {path.stem: read_rgb(path) for path in (lol_dir / "our485/low").glob("*.png")}
    found = {name: view(pixels) for name, pixels in images.items()}
    pairs = combinations(sorted(found, key=int), 2)
    alike = {pair for pair in pairs if _likeness(found[pair[0]], found[pair[1]]) > 0}
    same = "14 15, 61 62, 67 68, 84 86, 123 124, 141 142, 210 212"
    assert alike == {tuple(pair.split()) for pair in same.split(", ")}
