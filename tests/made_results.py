"""Results as stages leave them, made by hand."""

from __future__ import annotations

from pathlib import Path

from mirnet.results import TrainResult


def trained(run_id: str, model_dir: str | Path) -> TrainResult:
    """What training says of a model that no training made."""
    return TrainResult(
        run_id=run_id,
        model_dir=str(model_dir),
        model_name="mirnet-xs",
        num_parameters=1,
        digest="d48f.dir",
        best_epoch=1,
        best_val_psnr=20.0,
        history=(),
        num_workers=1,
        seconds=1.0,
    )
