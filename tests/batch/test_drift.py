from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mirnet.batch.drift import COLUMNS, DriftMonitor, build_profile, read_profile
from mirnet.batch.manifest import Row
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import UsageError, WeightsError
from mirnet.images import decode
from mirnet.images.stats import Measures, measure
from mirnet.params import EnhanceParams
from mirnet.storage.places import open_store
from tests.batch.samples import MODEL, double, fill, picture


def rows(luminances: np.ndarray) -> list[Row]:
    base = Row("k", "v", 1, "enhanced", "r", "d", "mirnet")
    return [replace(base, luminance_before=float(value)) for value in luminances]


def monitor(reference: object, **more: float) -> DriftMonitor:
    options = {"max_distance": 0.3, "min_images": 50} | more
    return DriftMonitor(reference, **options)  # type: ignore[arg-type]


REFERENCE = {"luminance": {"edges": [0.0, 0.1, 0.2, 0.3], "share": [0.5, 0.3, 0.2]}}


def judged(luminances: np.ndarray, **more: float) -> tuple[float, float, bool]:
    watch = monitor(REFERENCE, **more)
    for row in rows(luminances):
        watch.add(row)
    (result,) = watch.result()
    assert result.num_images == len(luminances)
    return result.distance, result.p_value, result.drifted


def test_same_shares_do_not_drift() -> None:
    exact = np.repeat([0.05, 0.15, 0.25], [50, 30, 20])
    distance, p_value, drifted = judged(exact)
    assert (distance, drifted) == (pytest.approx(0, abs=1e-3), False)
    assert p_value > 0.99


def test_values_beyond_the_edges_fall_into_the_outer_bins() -> None:
    outside = np.repeat([-1.0, 0.15, 9.0], [50, 30, 20])
    assert judged(outside)[0] == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("number", "value", "limits", "reason"),
    [
        (12, 0.05, {}, "12 images, fewer than 50: not judged"),
        (60, 0.25, {}, "drifted: distance 0.78, more than 0.3"),
        (60, 0.25, {"max_distance": 0.9}, "no drift: distance 0.78, at most 0.9 allowed"),
        (4, 0.05, {"min_images": 1}, "no drift: may be chance (p = 0.14, at least 0.001)"),
    ],
)
def test_verdict_in_words(number: int, value: float, limits: dict[str, float], reason: str) -> None:
    watch = monitor(REFERENCE, **limits)
    for row in rows(np.full(number, value)):
        watch.add(row)
    assert [each.reason for each in watch.result()] == [reason]


def test_distance_by_hand() -> None:
    """All in the first bin: JS divergence of (1, 0, 0) and (0.5, 0.3, 0.2), in bits."""
    mixed = np.array([0.75, 0.15, 0.1])
    p, q = np.array([1.0, 0.0, 0.0]), np.array([0.5, 0.3, 0.2])
    divergence = 0.5 * p[0] * np.log2(p[0] / mixed[0]) + 0.5 * float(np.sum(q * np.log2(q / mixed)))
    distance, p_value, drifted = judged(np.full(200, 0.05))
    assert distance == pytest.approx(np.sqrt(divergence), abs=1e-3)
    assert p_value < 1e-20
    assert drifted
    assert not judged(np.full(200, 0.05), max_distance=0.6)[2]


def test_few_images_say_nothing() -> None:
    assert not judged(np.full(20, 0.25))[2]
    assert judged(np.full(20, 0.25), min_images=20)[2]


def test_false_alarms_are_rare() -> None:
    chance = np.random.default_rng(0)
    profile = build_profile((Measures(*chance.gamma(2, 0.05, 5)), 600, 400) for _ in range(485))
    alarms = 0
    for _ in range(50):
        watch = monitor({"luminance": profile["luminance"]})
        for row in rows(chance.gamma(2, 0.05, 60)):
            watch.add(row)
        alarms += watch.result()[0].drifted
    assert alarms <= 1
    watch = monitor({"luminance": profile["luminance"]})
    for row in rows(chance.gamma(2, 0.15, 60)):
        watch.add(row)
    assert watch.result()[0].drifted, "three times as bright"


def test_profile_covers_all_columns_and_one_valued_ones() -> None:
    measured = [(measure(decode(picture(i), name="p").pixels), 32, 32) for i in range(20)]
    profile = build_profile(measured)
    assert set(profile) == set(COLUMNS)
    for histogram in profile.values():
        assert len(histogram["edges"]) == len(histogram["share"]) + 1
        assert sum(histogram["share"]) == pytest.approx(1)
        assert histogram["edges"] == sorted(histogram["edges"])
    assert profile["megapixels"]["share"] == [0, 1, 0]
    assert json.loads(json.dumps(profile)) == profile


@pytest.mark.parametrize("share", [[1.0], None], ids=["written by 0.1", "built now"])
def test_a_column_of_nearly_one_value_can_drift(share: list[float] | None) -> None:
    """Nearly all training images have no bright pixel; some night all have many."""
    measured = [(Measures(0.1, 0.2, 0.0049 * (n == 99), 0.01, 0.3), 60, 40) for n in range(100)]
    profile = build_profile(measured)
    if share:
        profile["bright_share"] = {"edges": [0.0, 0.0049], "share": share}
    changed = DriftMonitor(profile, max_distance=0.3, min_images=10)
    same = DriftMonitor(profile, max_distance=0.3, min_images=10)
    base = Row("k", "v", 1, "enhanced", "r", "d", "mirnet")
    for n in range(20):
        changed.add(replace(base, bright_share=0.3 + n / 100))
        same.add(replace(base, bright_share=0.0))
    assert [each.drifted for each in changed.result() if each.column == "bright_share"] == [True]
    assert [each.drifted for each in same.result() if each.column == "bright_share"] == [False]


def test_malformed_reference_names_its_column() -> None:
    with pytest.raises(UsageError, match="luminance"):
        monitor({"luminance": {"edges": [0, 1], "share": [0.5, 0.5]}})


def test_a_run_reports_drift(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    dark = [(measure(decode(picture(i, level=30), name="p").pixels), 32, 32) for i in range(30)]
    fill(source, {f"{i}.png": picture(i, level=200) for i in range(12)} | {"bad.png": b"x"})
    result = run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        params=EnhanceParams(drift_min_images=10, contact_images=0),
        settings=settings,
        reference=build_profile(dark),
    )
    assert "luminance" in result.drifted
    assert "megapixels" not in result.drifted
    assert result.drift["luminance"] > 0.5 > result.drift["megapixels"]
    assert result.summary_uri is not None
    folder = open_store(result.summary_uri.rpartition("/")[0], settings)
    entries = {
        each["column"]: each for each in json.loads(folder.get("summary.json").data)["drift"]
    }
    assert entries["luminance"]["num_images"] == 12
    assert entries["luminance"]["drifted"]


def test_measures_by_hand() -> None:
    flat = np.zeros((40, 40, 3), np.uint8)
    flat[..., 0] = 255
    red = measure(flat)
    assert red.luminance == pytest.approx(0.2126)
    assert (red.saturation, red.noise, red.dark_share) == (1, pytest.approx(0, abs=1e-6), 0)
    assert measure(np.full((9, 9, 3), 65535, np.uint16)).bright_share == 1
    assert measure(np.zeros((1, 1, 3), np.uint8)).noise == 0
    noise = np.random.default_rng(0).normal(0.5, 0.05, (256, 256, 1)).repeat(3, axis=2)
    estimated = measure((noise * 65535).astype(np.uint16)).noise
    assert estimated == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{broken", "profile.json: content: Invalid JSON"),
        (b"[" * 100_000, "profile.json: content: Invalid JSON"),
        (b'{"luminance": 3}', "profile.json: luminance:"),
        (b'{"luminance": {"edges": [0, 1]}}', "profile.json: luminance.share:"),
        (b'{"luminance": {"edges": [0, "a"], "share": [1]}}', "profile.json: luminance.edges.1:"),
        (b'{"noise": {"edges": [0, NaN], "share": [1]}}', "profile.json: noise.edges.1:"),
        (b'{"noise": {"edges": [0, 1, 2], "share": [1]}}', "noise: one edge more"),
        (b" " * (1 << 20) + b"{}", "profile.json: larger than"),
    ],
)
def test_a_broken_profile_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "profile.json").write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(problem)):
        read_profile(tmp_path / "profile.json")


def test_what_training_writes_is_read(tmp_path: Path) -> None:
    profile = build_profile((measure(decode(picture(n), name="a").pixels), 8, 8) for n in range(4))
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    assert read_profile(tmp_path / "profile.json") == profile
