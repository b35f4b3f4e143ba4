"""Cost of a run by the configured prices, and an estimate of its energy.

Busy time times price and power. Idle machines, storage and traffic are not included.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable

from mirnet.config import Settings
from mirnet.results import Cost, EpochMetrics


def estimate(settings: Settings, *, cpu_s: float, gpu_s: float = 0.0) -> Cost:
    """The cost of core seconds over all processes and of GPU seconds over all GPUs."""
    assert min(cpu_s, gpu_s) >= 0
    cpu_hours, gpu_hours = cpu_s / 3600, gpu_s / 3600
    return Cost(
        cpu_hours=cpu_hours,
        gpu_hours=gpu_hours,
        price=cpu_hours * settings.cpu_hour_price + gpu_hours * settings.gpu_hour_price,
        currency=settings.currency,
        energy_kwh=(cpu_hours * settings.cpu_watts + gpu_hours * settings.gpu_watts) / 1000,
    )


def of_training(settings: Settings, history: Iterable[EpochMetrics]) -> Cost:
    """The cost of all epochs, those before a resume included; without loading and export."""
    epochs = tuple(history)
    return estimate(
        settings, cpu_s=sum(e.cpu_s for e in epochs), gpu_s=sum(e.gpu_s for e in epochs)
    )


class CostMeter:
    """Measures the resource use of this process from the creation of the meter."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._cpu_s, self._wall_s = time.process_time(), time.perf_counter()

    def cost(self, *, elsewhere_s: float = 0.0) -> Cost:
        """The cost so far; ``elsewhere_s``: core seconds of other processes of the run.

        A GPU counts as busy while this process has it open; GPUs of other processes are not
        included.
        """
        torch = sys.modules.get("torch")
        busy_card = torch is not None and torch.cuda.is_initialized()
        wall_s = time.perf_counter() - self._wall_s
        return estimate(
            self._settings,
            cpu_s=time.process_time() - self._cpu_s + elsewhere_s,
            gpu_s=wall_s if busy_card else 0.0,
        )
