"""Cost and energy, by hand."""

from __future__ import annotations

import pytest

from mirnet.config import Settings
from mirnet.cost import estimate


def test_half_an_hour_on_two_cards_and_sixteen_cores() -> None:
    settings = Settings(cpu_hour_price=0.05, gpu_hour_price=2.5, cpu_watts=10, gpu_watts=400)
    cost = estimate(settings, seconds=1800, num_cpus=16, num_gpus=2)
    assert (cost.cpu_hours, cost.gpu_hours) == (8.0, 1.0)
    assert cost.price == pytest.approx(8 * 0.05 + 2.5)
    assert cost.energy_kwh == pytest.approx(0.08 + 0.4)
    assert cost.metrics()["cost/price"] == cost.price


def test_without_prices_the_energy_is_still_said() -> None:
    cost = estimate(Settings(), seconds=3600, num_cpus=2)
    assert cost.price == 0
    assert cost.energy_kwh == pytest.approx(0.02)
    assert cost.currency == "EUR"
