"""Epoch metrics to MLflow during training; queued while MLflow is unreachable."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from mirnet.results import EpochMetrics, NodeUsage, SampleImage
from mirnet.tracking.notes import PREVIEW, shrunk
from mirnet.tracking.outbox import File, Metrics, Outbox

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


@dataclass
class EpochLogger:
    """Callable for each epoch; picklable, connects in the process where it is called.

    Training does not depend on MLflow: records that cannot be sent are queued in ``pending_path``
    and sent before the next epoch's metrics, or by ``mirnet runs deliver``.
    """

    tracking_uri: str
    run_id: str
    pending_path: Path
    _outbox: Outbox = field(init=False, repr=False)
    _previewed: str = field(default="", init=False, repr=False)

    def __post_init__(self) -> None:
        self._outbox = Outbox(self.tracking_uri, self.pending_path)

    def extra(self, extra: NodeUsage | SampleImage) -> None:
        """A sample image, by its pair, or the usage of a node, as system metrics."""
        if isinstance(extra, SampleImage):
            self._image(extra)
            return
        values = {f"system/{extra.node}/{key}": value for key, value in extra.values.items()}
        self._outbox.write(Metrics(run_id=self.run_id, values=values, step=extra.epoch))

    def _image(self, sample: SampleImage) -> None:
        with tempfile.TemporaryDirectory(prefix="mirnet-image-") as folder:
            path = Path(folder) / PREVIEW
            path.write_bytes(sample.jpeg)
            key = f"samples/{sample.pair}"
            entry = File(run_id=self.run_id, path=path, image_key=key, step=sample.epoch)
            self._outbox.write(entry)
            self._previewed = self._previewed or sample.pair
            if sample.pair == self._previewed:
                for preview in (path, shrunk(path)):
                    self._outbox.write(File(run_id=self.run_id, path=preview))

    def __call__(self, metrics: EpochMetrics) -> None:
        given = metrics.model_dump(exclude_none=True)
        values = {name: given[key] for key, name in _NAMES.items() if key in given}
        values |= {f"train/loss_{name}": value for name, value in metrics.train_parts.items()}
        self._outbox.write(Metrics(run_id=self.run_id, values=values, step=metrics.epoch))
