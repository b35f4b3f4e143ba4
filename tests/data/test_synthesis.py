from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from typer.testing import CliRunner

from mirnet.cli.data import app
from mirnet.data.degradation import (
    WIDE,
    Degradation,
    DegradationRanges,
    darken,
    develop,
    draw,
    in_light_of,
    through_jpeg,
    unprocess,
)
from mirnet.data.layout import find_pairs
from mirnet.data.samples import (
    PHOTOGRAPHS,
    make_from_photographs,
    make_sample_data,
    photograph_path,
)
from mirnet.data.versioning import take_snapshot
from mirnet.errors import DataError, UsageError
from mirnet.images import read_rgb

GAINS = np.array([2.0, 1.0, 1.7], np.float32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    (root / "trip 1").mkdir()
    for number, photo in enumerate(PHOTOGRAPHS[:5]):
        picture = Image.open(photograph_path(photo)).convert("RGB").resize((96, 80))
        picture.save(root / ("trip 1" if number % 2 else ".") / f"{photo.name}.png")
    return root


def how(**changes: object) -> Degradation:
    values: dict[str, object] = {
        "exposure": 0.1,
        "gamma": 2.2,
        "shot_noise": 0.0,
        "read_noise": 0.0,
        "red_gain": 2.0,
        "blue_gain": 1.7,
        "red_error": 1.0,
        "blue_error": 1.0,
        "jpeg_quality": None,
    }
    return Degradation.model_validate(values | changes)


def test_unprocessing_is_undone_by_developing() -> None:
    levels = np.arange(256, dtype=np.uint8)
    grid = np.stack(np.meshgrid(levels[::5], levels[::5], indexing="ij"), axis=-1)
    pixels = np.concatenate([grid, grid[..., :1][::-1]], axis=-1)
    back = develop(unprocess(pixels, gamma=2.2, gains=GAINS), gamma=2.2, gains=GAINS)
    # above the highlights' mask a gain clips by design
    safe = pixels.max(axis=-1) < 230
    assert np.abs(back.astype(int) - pixels)[safe].max() <= 1


def test_full_exposure_without_noise_changes_nothing() -> None:
    pixels = np.full((8, 8, 3), (30, 120, 90), np.uint8)
    dark = darken(pixels, how(exposure=1.0), np.random.default_rng(0))
    assert (dark == pixels).all()


def test_exposure_acts_on_linear_light() -> None:
    pixels = np.full((4, 4, 3), 128, np.uint8)
    raw = unprocess(pixels, gamma=2.2, gains=GAINS)
    half = darken(pixels, how(exposure=0.5), np.random.default_rng(0))
    again = unprocess(half, gamma=2.2, gains=GAINS)
    assert again / raw == pytest.approx(np.full_like(raw, 0.5), rel=0.03)


def test_noise_has_the_variance_it_should() -> None:
    pixels = np.full((400, 400, 3), 128, np.uint8)
    unit = how(exposure=0.4, shot_noise=1e-3, read_noise=1e-5)
    clean = unprocess(pixels, gamma=2.2, gains=GAINS) * np.float32(0.4)
    dark = darken(pixels, unit, np.random.default_rng(0))
    raw = unprocess(dark, gamma=2.2, gains=GAINS)
    expected = 1e-3 * clean[0, 0] + 1e-5
    assert raw.var(axis=(0, 1)) == pytest.approx(expected, rel=0.1)


def test_drawn_parameters_stay_in_their_ranges() -> None:
    ranges = DegradationRanges(jpeg_share=0.5)
    drawn = [draw(ranges, np.random.default_rng(seed)) for seed in range(300)]
    exposures = np.array([d.exposure for d in drawn])
    assert exposures.min() >= 0.02
    assert exposures.max() <= 0.4
    assert np.median(np.log(exposures)) == pytest.approx(np.log(0.02 * 0.4) / 2, abs=0.2)
    assert 0.4 < np.mean([d.jpeg_quality is not None for d in drawn]) < 0.6
    # log read = 2.18 log shot + 1.20 + N(0, 0.26)
    rest = [np.log(d.read_noise) - 2.18 * np.log(d.shot_noise) - 1.20 for d in drawn]
    assert np.mean(rest) == pytest.approx(0, abs=0.06)
    assert np.std(rest) == pytest.approx(0.26, abs=0.04)


def test_bounds_are_checked() -> None:
    with pytest.raises(ValidationError, match="exposure"):
        DegradationRanges(exposure=(0.4, 0.02))
    with pytest.raises(ValidationError, match="mired_shift"):
        DegradationRanges(mired_shift=(100, -60))
    with pytest.raises(ValidationError, match="tone"):
        DegradationRanges(tone=(0, 2))


def test_wide_parameters_stay_in_their_ranges() -> None:
    drawn = [draw(WIDE, np.random.default_rng(seed)) for seed in range(400)]
    stops = np.log2([d.exposure for d in drawn])
    assert -6 <= stops.min() < -5
    assert -1 < stops.max() <= 0
    casts = np.array([d.mired_shift for d in drawn])
    assert -60 <= casts.min() < -40
    assert 100 < casts.max() <= 120
    assert 0.6 <= min(d.tone for d in drawn) < 0.65 < 0.95 < max(d.tone for d in drawn) <= 1
    assert np.mean([d.well_lit for d in drawn]) == pytest.approx(0.15, abs=0.05)
    assert {d.jpeg_quality for d in drawn} - {None} <= set(range(50, 96))


def test_a_well_lit_pair_is_the_same_image_twice() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    low = darken(pixels, how(well_lit=True, shot_noise=0.01), np.random.default_rng(0))
    assert (low == pixels).all()


def test_light_of_a_lamp_is_what_a_black_body_radiates() -> None:
    # Planck's law at the three wavelengths, 6504 K and 2856 K (CIE D65 and illuminant A)
    wavelengths = np.array([600e-9, 540e-9, 450e-9])
    day, lamp = (1 / np.expm1(1.4388e-2 / wavelengths / kelvin) for kelvin in (6504, 2856))
    expected = (lamp / day) / (lamp / day)[1]
    shift = 1e6 / 2856 - 1e6 / 6504
    found = in_light_of(np.ones((1, 1, 3), np.float32), shift)[0, 0]
    assert found == pytest.approx(expected, rel=0.03)
    assert found[0] > 1.5 > 0.5 > found[2]


def test_a_cast_acts_on_the_light_before_the_noise() -> None:
    pixels = np.full((200, 200, 3), 128, np.uint8)
    unit = how(exposure=0.4, shot_noise=1e-3, mired_shift=80.0)
    clean = in_light_of(unprocess(pixels, gamma=2.2, gains=GAINS) * np.float32(0.4), 80.0)
    raw = unprocess(darken(pixels, unit, np.random.default_rng(0)), gamma=2.2, gains=GAINS)
    assert raw.mean(axis=(0, 1)) == pytest.approx(clean[0, 0], rel=0.02)
    assert raw.var(axis=(0, 1)) == pytest.approx(1e-3 * clean[0, 0], rel=0.1)


def test_a_flat_tone_curve_lifts_shadows_and_keeps_black_middle_and_white() -> None:
    pixels = np.repeat(np.array([0, 40, 128, 215, 255], np.uint8), 3).reshape(1, 5, 3)
    flat = darken(pixels, how(exposure=1.0, tone=0.0), np.random.default_rng(0))[0, :, 1]
    assert flat[0] == 0
    assert flat[1] > 55
    assert flat[2] == pytest.approx(128, abs=1)
    assert flat[3] < 200
    assert flat[4] == 255


def test_a_steep_tone_curve_makes_shadows_black_and_never_white() -> None:
    raw = np.linspace(0, 1, 2000, dtype=np.float32).reshape(1, -1, 1).repeat(3, axis=2)
    one = np.ones(3, np.float32)
    steep = develop(raw, gamma=2.2, gains=one, tone=1.5).astype(int)[0, :, 0]
    assert steep[raw[0, :, 0] < 0.008].max() == 0
    assert steep[-1] == 255
    assert np.diff(steep).min() >= 0


def test_jpeg_costs_more_at_lower_quality(photos: Path) -> None:
    pixels = read_rgb(photos / "trip 1/motorcycle.png")
    errors = [
        np.abs(through_jpeg(pixels, quality).astype(int) - pixels).mean() for quality in (50, 95)
    ]
    assert errors[0] > 1.5 * errors[1] > 0


def test_wide_pairs_have_columns_of_their_own(photos: Path, tmp_path: Path) -> None:
    tables = []
    half_well_lit = WIDE.model_copy(update={"well_lit_share": 0.5})
    for name, ranges in (("published", None), ("wide", half_well_lit)):
        make_from_photographs(photos, tmp_path / name, per_photo=4, size=48, ranges=ranges)
        with (tmp_path / name / "pairs.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    published, wide = tables
    assert set(wide[0]) - set(published[0]) == {"mired_shift", "tone", "well_lit"}
    same = {
        row["pair"]
        for row in wide
        if (read_rgb(low_of(tmp_path, row)) == read_rgb(low_of(tmp_path, row, "high"))).all()
    }
    assert same == {row["pair"] for row in wide if row["well_lit"] == "True"}
    assert 0 < len(same) < len(wide)


def low_of(root: Path, row: dict[str, str], side: str = "low") -> Path:
    split, name = row["pair"].split("/")
    return root / "wide" / split / side / name


def test_the_sample_pairs_keep_their_parameters_and_crops(tmp_path: Path) -> None:
    make_sample_data(tmp_path / "data", num_train=2, num_eval=2, size=64)
    lines = (tmp_path / "data/pairs.csv").read_text().splitlines()
    assert lines[0] == (
        "pair,source,crop,exposure,gamma,shot_noise,read_noise,red_gain,blue_gain,red_error,"
        "blue_error,jpeg_quality"
    )
    assert lines[1] == (
        "our485/astronaut-01.png,astronaut,246+194+90x90,0.165063,2.58424,0.00102439,7.47327e-07,"
        "2.27903,1.85963,1.12529,0.925078,"
    )


def test_same_bytes_in_any_number_of_processes(photos: Path, tmp_path: Path) -> None:
    digests = set()
    for number in (1, 2):
        root = tmp_path / str(number)
        make_from_photographs(photos, root, seed=5, per_photo=2, size=64, num_processes=number)
        digests.add(take_snapshot(root).digest)
    assert len(digests) == 1


def test_photographs_do_not_straddle_the_splits(photos: Path, tmp_path: Path) -> None:
    pairs = make_from_photographs(photos, tmp_path / "data", per_photo=3, eval_share=0.4)
    assert len(pairs) == 15
    with (tmp_path / "data/pairs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    judged = {row["source"] for row in rows if row["pair"].startswith("eval15")}
    assert len(judged) == 2
    assert not judged & {row["source"] for row in rows if row["pair"].startswith("our485")}
    first = pairs[0]
    reference = np.asarray(Image.open(photos / rows[0]["source"]))
    assert (np.asarray(Image.open(first.high_path)).shape) == reference.shape


def test_command(photos: Path, tmp_path: Path) -> None:
    run = CliRunner()
    arguments = ["synthesize", str(photos), str(tmp_path / "made"), "--size", "64"]
    made = run.invoke(app, [*arguments, "--set", "exposure=[0.05,0.05]"])
    assert made.exit_code == 0, made.output
    assert "5 pairs" in made.output
    assert len(find_pairs(tmp_path / "made")) == 5
    assert "0.05" in (tmp_path / "made/pairs.csv").read_text()
    wide = ["synthesize", str(photos), str(tmp_path / "wide"), "--size", "64", "--wide"]
    made = run.invoke(app, [*wide, "--set", "well_lit_share=1"])
    assert made.exit_code == 0, made.output
    assert "mired_shift" in (tmp_path / "wide/pairs.csv").read_text()
    wrong = run.invoke(app, [*arguments, "--set", "exposure=[2,1]"])
    assert isinstance(wrong.exception, UsageError)
    nothing = run.invoke(
        app, ["synthesize", str(tmp_path / "made/our485/none"), str(tmp_path / "x")]
    )
    assert isinstance(nothing.exception, DataError)
