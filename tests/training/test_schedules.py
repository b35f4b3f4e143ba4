from __future__ import annotations

import pytest

from mirnet.params import TrainParams
from mirnet.training.phases import Span
from mirnet.training.schedules import Schedule


def _one(total_steps):
    return (Span(None, 0, total_steps, {"l1": 1.0}),)


def _rates(total_steps, *, spans=None, **recipe):
    schedule = Schedule(TrainParams(lr=1.0, min_lr=0.0, **recipe), spans or _one(total_steps))
    return [schedule.lr(step) for step in range(total_steps)]


def test_warm_up_rises_in_a_line_then_the_cosine_falls_to_the_floor():
    rates = _rates(104, schedule="cosine", warmup_steps=4)
    assert rates[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert rates[4] == pytest.approx(1.0)
    assert rates[54] == pytest.approx(0.5)
    assert rates[-1] == pytest.approx(0.0, abs=1e-3)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_two_cycles_are_flat_for_92_of_300_parts_then_a_cosine():
    rates = _rates(300, schedule="two-cycle")
    assert rates[:93] == pytest.approx([1.0] * 93)
    assert rates[93] < 1.0
    assert rates[196] == pytest.approx(0.5, abs=1e-6)


def test_each_phase_has_a_schedule_of_its_own():
    first, second = Span("a", 0, 10, {"l1": 1.0}, lr=0.1), Span("b", 10, 60, {"l1": 1.0})
    rates = _rates(60, spans=(first, second), schedule="cosine", warmup_steps=2)
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[9] < 0.01
    assert rates[10:13] == pytest.approx([0.5, 1.0, 1.0])
    assert rates[2 + 34] == pytest.approx(0.5)
    assert rates[59] < 0.01


def test_constant_is_constant():
    assert set(_rates(10, schedule="constant")) == {1.0}


def test_the_plateau_halves_after_its_patience_and_its_state_travels():
    recipe = TrainParams(lr=1.0, schedule="plateau", plateau_patience=1, plateau_factor=0.5)
    schedule = Schedule(recipe, _one(100))
    for psnr in (20.0, 21.0, 20.5):
        schedule.validated(psnr)
    assert schedule.lr(50) == 1.0
    twin = Schedule(recipe, _one(100))
    twin.load_state_dict(schedule.state_dict())
    for each in (schedule, twin):
        each.validated(20.9)
        assert each.lr(50) == 0.5
        each.validated(22.0)
        assert each.lr(50) == 0.5


def test_only_the_plateau_listens_to_validation():
    schedule = Schedule(TrainParams(lr=1.0, schedule="constant"), _one(10))
    for _ in range(20):
        schedule.validated(1.0)
    assert schedule.lr(5) == 1.0
