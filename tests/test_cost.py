"""Cost and energy, by hand, and what a process really used."""

from __future__ import annotations

import time

import pytest

from mirnet.config import Settings
from mirnet.cost import CostMeter, estimate, of_training
from mirnet.results import EpochMetrics


def test_half_an_hour_on_two_cards_and_sixteen_cores() -> None:
    settings = Settings(cpu_hour_price=0.05, gpu_hour_price=2.5, cpu_watts=10, gpu_watts=400)
    cost = estimate(settings, cpu_s=1800 * 16, gpu_s=1800 * 2)
    assert (cost.cpu_hours, cost.gpu_hours) == (8.0, 1.0)
    assert cost.price == pytest.approx(8 * 0.05 + 2.5)
    assert cost.energy_kwh == pytest.approx(0.08 + 0.4)
    assert cost.metrics()["system/cost/price"] == cost.price


def test_without_prices_the_energy_is_still_said() -> None:
    cost = estimate(Settings(), cpu_s=7200)
    assert cost.price == 0
    assert cost.energy_kwh == pytest.approx(0.02)
    assert cost.currency == "EUR"


def test_a_training_costs_all_its_epochs() -> None:
    epochs = [
        EpochMetrics(epoch=i, step=i, lr=0.1, train_loss=1, train_psnr=1, cpu_s=1800, gpu_s=900)
        for i in range(2)
    ]
    cost = of_training(Settings(gpu_hour_price=4), epochs)
    assert (cost.cpu_hours, cost.gpu_hours, cost.price) == (1.0, 0.5, 2.0)


def test_the_meter_counts_work_and_not_waiting() -> None:
    meter = CostMeter(Settings())
    time.sleep(0.3)
    waited = meter.cost().cpu_hours * 3600
    begun = time.process_time()
    while time.process_time() - begun < 0.4:
        pass
    worked = meter.cost().cpu_hours * 3600
    assert worked - waited >= 0.4
    assert waited < 0.3
    assert meter.cost(elsewhere_s=3600).cpu_hours > 1
