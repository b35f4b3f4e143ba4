from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mirnet.evaluation.statistics import (
    images_needed,
    interval,
    paired_gain,
    prediction_interval,
    spread,
    student_gain,
)


def table(**methods: list[float]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"pair_id": f"{i}.png", "method": name, "psnr": value}
            for name, values in methods.items()
            for i, value in enumerate(values)
        ]
    )


def test_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        low, high = interval(rng.normal(20, 3, size=15), num_samples=400, seed=trial)
        hits += low <= 20 <= high
    assert 0.85 <= hits / 200 <= 0.99


def test_interval_is_the_same_for_a_seed() -> None:
    values = np.random.default_rng(1).normal(size=12)
    first = interval(values, num_samples=500, seed=3)
    assert first == interval(values, num_samples=500, seed=3)
    assert first != interval(values, num_samples=500, seed=4)


def test_equal_values_have_no_width_and_none_is_an_error() -> None:
    assert interval(np.full(5, 7.0), num_samples=100, seed=0) == (7.0, 7.0)
    with pytest.raises(ValueError, match="at least one"):
        interval(np.array([]), num_samples=100, seed=0)


def test_paired_gain_sees_a_small_difference_under_a_large_spread() -> None:
    """Images differ by 10 dB, the methods by 0.5: only the pairing shows it."""
    rng = np.random.default_rng(2)
    base = rng.normal(20, 10, size=15)
    better = base + rng.normal(0.5, 0.1, size=15)
    gain = paired_gain(table(a=list(better), b=list(base)), "a", "b", num_samples=500, seed=0)
    assert gain.mean == pytest.approx((better - base).mean())
    assert 0.4 < gain.low < gain.mean < gain.high < 0.6
    assert gain.num_images == 15


def test_paired_gain_refuses_other_images_and_methods() -> None:
    scores = table(a=[1.0, 2.0], b=[1.0])
    with pytest.raises(ValueError, match="same images"):
        paired_gain(scores, "a", "b", num_samples=100, seed=0)
    with pytest.raises(ValueError, match="not scored: c"):
        paired_gain(scores, "a", "c", num_samples=100, seed=0)


def test_spread_over_seeds_by_hand() -> None:
    result = spread([20.0, 21.0, 22.0])
    assert (result.mean, result.std, result.low, result.high) == (21.0, 1.0, 20.0, 22.0)
    with pytest.raises(ValueError, match="two runs"):
        spread([20.0])


def test_the_prediction_interval_holds_one_more_value_as_often_as_it_says() -> None:
    # by hand: mean 21, s 1, t(0.975, 2) = 4.3027, sqrt(1 + 1/3) = 1.1547
    assert prediction_interval([20.0, 21.0, 22.0]) == pytest.approx((16.0317, 25.9683), abs=1e-3)
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(2000):
        *seen, one_more = rng.normal(19, 0.5, size=4)
        low, high = prediction_interval(seen)
        hits += low <= one_more <= high
    assert 0.935 <= hits / 2000 <= 0.965
    with pytest.raises(ValueError, match="two runs or more"):
        prediction_interval([20.0])


def test_as_many_images_as_needed_tell_the_gain_in_four_of_five_evaluations() -> None:
    rng = np.random.default_rng(0)
    needed = images_needed(rng.normal(0, 2.0, size=5000), gain=0.5)
    samples = rng.normal(0.5, 2.0, size=(3000, needed))
    told = stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05
    assert told.mean() == pytest.approx(0.8, abs=0.03)


def test_an_interval_of_five_differences_covers_the_mean_19_times_of_20() -> None:
    rng = np.random.default_rng(1)
    gains = [student_gain(rng.normal(0.3, 1.5, size=5)) for _ in range(2000)]
    assert np.mean([g.low <= 0.3 <= g.high for g in gains]) == pytest.approx(0.95, abs=0.015)
