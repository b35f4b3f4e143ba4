from __future__ import annotations

import mmap
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from mirnet.evaluation.safety_checks import (
    guarded,
    harm_share,
    peak_mib_per_megapixel,
    well_lit_psnr,
)
from mirnet.images.harm import HarmLimits
from mirnet.images.thumbnails import side_by_side

Pixels = NDArray[np.uint8]


def test_well_lit_pictures_by_hand() -> None:
    flat = np.full((16, 16, 3), 100, np.uint8)
    assert well_lit_psnr(lambda p: p, [flat, flat]) == 100
    assert well_lit_psnr(lambda p: p + np.uint8(10), [flat]) == pytest.approx(28.13, abs=0.01)


def test_well_lit_pictures_are_judged_as_a_batch_writes_them() -> None:
    limits: HarmLimits = {"darker": 0.0}
    flat = np.full((16, 16, 3), 100, np.uint8)
    bright = np.full((16, 16, 3), 200, np.uint8)
    asked = []

    def darken(pixels: Pixels) -> Pixels:
        asked.append(pixels.mean())
        return pixels // 2

    def brighten(pixels: Pixels) -> Pixels:
        return pixels + np.uint8(10)

    assert well_lit_psnr(guarded(darken, limits, pass_luminance=0.5), [flat, bright]) == 100
    assert asked == [100], "what is bright enough does not go to the model"
    unchanged = guarded(darken, {}, pass_luminance=None)
    assert np.array_equal(unchanged(bright), bright // 2)
    assert np.array_equal(guarded(brighten, limits, pass_luminance=None)(flat), flat + 10)
    pictures = [(flat, darken(flat)), (flat, brighten(flat)), (flat, flat), (flat, flat)]
    assert harm_share(pictures, limits) == 0.25


def test_the_change_fades_towards_bright_images() -> None:
    def white(pixels: Pixels) -> Pixels:
        return np.full_like(pixels, 255)

    written = guarded(white, {}, pass_luminance=0.4)
    levels = [written(np.full((16, 16, 3), level, np.uint8)).mean() for level in range(120)]
    assert levels[:69] == [255] * 69, "all of the output up to two thirds of the limit"
    assert levels[102:] == list(range(102, 120)), "0.4 of 255: the input"
    steps = np.diff(levels[67:104])
    assert (steps <= 1).all() and (steps >= -7).all(), "no jump at either end"
    wide = guarded(white, {}, pass_luminance=0.4)
    assert wide(np.full((600, 8, 3), 87, np.uint8)).std() == 0, "bands do not show"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory_sees_what_a_method_takes_for_a_moment() -> None:
    picture = np.zeros((1000, 1000, 3), np.uint8)

    def greedy(pixels: Pixels) -> Pixels:
        # 200 MiB, touched and given back; the allocator may still hold some from other tests
        block = mmap.mmap(-1, 200 * 2**20)
        np.frombuffer(block, np.uint8)[:: mmap.PAGESIZE] = 1
        block.close()
        return pixels

    frugal = peak_mib_per_megapixel(lambda p: p, picture)
    taken = peak_mib_per_megapixel(greedy, picture)
    if frugal is None or taken is None:
        pytest.skip("this kernel does not reset the high-water mark")
    assert frugal < 50
    assert 150 < taken < 300


def test_pictures_in_a_row() -> None:
    black, grey = np.zeros((5, 7, 3), np.uint8), np.full((5, 7, 3), 99, np.uint8)
    row = side_by_side([black, grey])
    assert row.shape == (5, 7 + 4 + 7, 3)
    assert (row[:, :7] == 0).all() and (row[:, 7:11] == 255).all() and (row[:, 11:] == 99).all()
