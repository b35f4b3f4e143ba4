"""Prometheus metrics of the monitoring flow: checks, champion, last run of each stage."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

from mirnet.doctor import DoctorCheck
from mirnet.errors import UsageError
from mirnet.results import Cost, EnhanceResult, EvaluationResult, Result, TrainResult
from mirnet.telemetry import Gauge

_LEVELS = {"ok": 0, "skipped": 0, "warning": 1, "failed": 2}
_FATES = ("enhanced", "passed_through", "skipped", "quarantined", "failed")
_STAGES: dict[str, type[TrainResult | EvaluationResult | EnhanceResult]] = {
    "train": TrainResult,
    "evaluate": EvaluationResult,
    "enhance": EnhanceResult,
}


class Champion(Result):
    version: str
    age_s: float
    data_digest: str | None


def of_look(checks: Iterable[DoctorCheck], champion: Champion | None) -> list[Gauge]:
    """Metrics of the checks and of the registry."""
    found = [
        Gauge(
            "mirnet_check",
            "0 fine, 1 warning, 2 failed",
            float(_LEVELS[check.outcome]),
            {"check": check.name},
        )
        for check in checks
    ]
    found.append(Gauge("mirnet_watch_timestamp_seconds", "time of this look", time.time()))
    if champion is not None:
        found.append(
            Gauge(
                "mirnet_champion_age_seconds",
                "time since the champion was registered",
                champion.age_s,
                {"version": champion.version},
            )
        )
    return found


def of_reports(folder: Path) -> list[Gauge]:
    """Metrics of the last run of each stage, from its JSON, if it exists."""
    found: list[Gauge] = []
    for stage, kind in _STAGES.items():
        path = folder / f"{stage}.json"
        if not path.is_file():
            continue
        try:
            result = kind.load(path)
        except UsageError:  # written by another version of this code
            continue
        found += _of_stage(stage, result, finished=path.stat().st_mtime)
    return found


def _of_stage(
    stage: str, result: TrainResult | EvaluationResult | EnhanceResult, *, finished: float
) -> list[Gauge]:
    where = {"stage": stage}
    found = [
        Gauge("mirnet_stage_timestamp_seconds", "end of the last run", finished, where),
        Gauge("mirnet_stage_seconds", "duration of the last run", result.seconds, where),
    ]
    if result.cost is not None:
        found += _of_cost(result.cost, where)
    if isinstance(result, EnhanceResult):
        found += [
            Gauge(
                "mirnet_images", "of the last night", float(getattr(result, fate)), {"fate": fate}
            )
            for fate in _FATES
        ]
        found += [
            Gauge("mirnet_harm", "passed through by the last night", float(number), {"kind": kind})
            for kind, number in result.harm.items()
        ]
    if isinstance(result, EvaluationResult):
        found += [
            Gauge("mirnet_psnr_db", "of the last evaluation", score.psnr, {"method": name})
            for name, score in result.methods.items()
        ]
    return found


def _of_cost(cost: Cost, where: dict[str, str]) -> list[Gauge]:
    return [
        Gauge("mirnet_cpu_hours", "busy cores of the last run", cost.cpu_hours, where),
        Gauge("mirnet_gpu_hours", "busy GPUs of the last run", cost.gpu_hours, where),
        Gauge("mirnet_energy_kwh", "estimate for the last run", cost.energy_kwh, where),
        Gauge("mirnet_price", "of the last run", cost.price, where | {"currency": cost.currency}),
    ]
