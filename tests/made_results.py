"""Results as stages leave them, made by hand."""

from __future__ import annotations

from pathlib import Path

from mirnet.results import MethodScore, TrainResult

# networks of a few steps are no good: a gate that sees nothing but that there is one
LENIENT_GATE = (
    "promote.min_gain_db=-100",
    "promote.max_loss_db=100",
    "promote.max_plain_loss_db=null",
    "promote.max_slice_loss_db=null",
    "promote.max_colour_cast=null",
    "promote.min_luma_ratio=null",
    "promote.min_well_lit_psnr_db=null",
    "promote.max_added_clipping=null",
)


def score(num_images: int) -> MethodScore:
    """A good score of the method ``mirnet``."""
    return MethodScore(
        method="mirnet",
        num_images=num_images,
        psnr=20.0,
        psnr_interval=(19.0, 21.0),
        ssim=0.8,
        ssim_interval=(0.7, 0.9),
    )


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
