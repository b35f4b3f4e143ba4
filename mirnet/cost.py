"""What a run cost, by the configured prices, and about how much energy it took.

An estimate: busy time times price and power. Idle machines, storage and traffic are not in it.
"""

from __future__ import annotations

from mirnet.config import Settings
from mirnet.results import Result


class Cost(Result):
    """One stage or run."""

    cpu_hours: float
    gpu_hours: float
    price: float
    currency: str
    energy_kwh: float

    def metrics(self) -> dict[str, float]:
        """For an MLflow run."""
        return {
            "cost/cpu_hours": self.cpu_hours,
            "cost/gpu_hours": self.gpu_hours,
            "cost/price": self.price,
            "cost/energy_kwh": self.energy_kwh,
        }


def estimate(settings: Settings, *, seconds: float, num_cpus: float, num_gpus: float = 0.0) -> Cost:
    """Busy cores and cards for ``seconds``.

    Args:
        settings: Prices and watts.
        seconds: Wall clock, s.
        num_cpus: CPU cores in use on average, over all workers.
        num_gpus: GPUs in use, over all workers.
    """
    assert min(seconds, num_cpus, num_gpus) >= 0
    cpu_hours, gpu_hours = seconds * num_cpus / 3600, seconds * num_gpus / 3600
    return Cost(
        cpu_hours=cpu_hours,
        gpu_hours=gpu_hours,
        price=cpu_hours * settings.cpu_hour_price + gpu_hours * settings.gpu_hour_price,
        currency=settings.currency,
        energy_kwh=(cpu_hours * settings.cpu_watts + gpu_hours * settings.gpu_watts) / 1000,
    )
