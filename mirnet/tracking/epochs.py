"""Epoch metrics to MLflow while training runs; kept and delivered later when MLflow is away."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ConfigDict, ValidationError

from mirnet.errors import DataError, ServiceError
from mirnet.results import EpochMetrics
from mirnet.tracking.client import connect_uri, service_errors

if TYPE_CHECKING:
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

_NAMES = {
    "lr": "train/lr",
    "train_loss": "train/loss",
    "train_psnr": "train/psnr",
    "val_loss": "val/loss",
    "val_psnr": "val/psnr",
    "val_ssim": "val/ssim",
    "grad_norm": "train/grad_norm",
    "patches_per_s": "train/patches_per_s",
    "wait_share": "train/wait_share",
    "seconds": "train/epoch_s",
}


class PendingMetrics(BaseModel):
    """One line of the file that waits for MLflow."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    run_id: str
    timestamp_ms: int
    metrics: EpochMetrics


@dataclass
class EpochLogger:
    """Callable for each epoch; pickles, and connects in the process where it is called.

    Training never stops because MLflow does: what cannot be sent goes to ``pending_path`` and is
    sent before the next epoch's metrics, or by ``mirnet runs deliver``.
    """

    tracking_uri: str
    run_id: str
    pending_path: Path
    _warned: bool = field(default=False, repr=False)

    def __call__(self, metrics: EpochMetrics) -> None:
        entry = PendingMetrics(
            run_id=self.run_id, timestamp_ms=int(time.time() * 1000), metrics=metrics
        )
        _append(self.pending_path, entry)
        try:
            deliver(self.tracking_uri, self.pending_path)
        except ServiceError as error:
            if not self._warned:
                log.warning(
                    "%s. Metrics wait in %s; later: mirnet runs deliver %s",
                    error,
                    self.pending_path,
                    self.pending_path,
                )
            self._warned = True
        else:
            self._warned = False


def deliver(tracking_uri: str, pending_path: Path) -> int:
    """Send what waits in the file and remove it; how many epochs that were.

    Sending twice does no harm: MLflow keeps one value a step and time.

    Raises:
        DataError: the file is missing or a line is not ours.
        ServiceError: MLflow is still away; the file stays.
    """
    entries = _read(pending_path)
    client = connect_uri(tracking_uri)
    with service_errors(tracking_uri):
        for entry in entries:
            client.log_batch(entry.run_id, metrics=_as_mlflow(entry))
    pending_path.unlink(missing_ok=True)
    return len(entries)


def _append(path: Path, entry: PendingMetrics) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(entry.model_dump_json() + "\n")


def _read(path: Path) -> list[PendingMetrics]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: nothing waits for delivery") from None
    entries = []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(PendingMetrics.model_validate_json(line))
        except ValidationError as error:
            # a process killed while it wrote leaves half a line at the end, and only there
            if number == len(lines) and not _is_json(line):
                break
            raise DataError(f"{path}:{number} is not an epoch's metrics") from error
    return entries


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _as_mlflow(entry: PendingMetrics) -> list[Metric]:
    from mlflow.entities import Metric

    values = entry.metrics.model_dump()
    return [
        Metric(name, float(values[field_name]), entry.timestamp_ms, entry.metrics.epoch)
        for field_name, name in _NAMES.items()
        if values[field_name] is not None
    ]
