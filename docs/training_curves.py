"""Draws the curves of a training run: ``python docs/training_curves.py reports/train.json``."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl

from mirnet.results import TrainResult

mpl.use("Agg")
import matplotlib.pyplot as plt

TARGET = Path(__file__).parent / "images" / "training-curves.png"


def draw(result: TrainResult, target: Path) -> None:
    """Loss, PSNR and learning rate over the steps."""
    history = result.history
    steps = [m.step for m in history]
    scored = [m for m in history if m.val_psnr is not None]
    figure, (loss, psnr, rate) = plt.subplots(1, 3, figsize=(11, 3), layout="constrained")
    loss.plot(steps, [m.train_loss for m in history], marker=".", label="training (loss)")
    loss.plot([m.step for m in scored], [m.val_loss for m in scored], "s", label="validation (L1)")
    psnr.plot(steps, [m.train_psnr for m in history], marker=".", label="training patches")
    psnr.plot(
        [m.step for m in scored], [m.val_psnr for m in scored], "s", label="validation images"
    )
    rate.plot(steps, [m.lr for m in history], marker=".")
    for axes, title in ((loss, "loss"), (psnr, "PSNR, dB"), (rate, "learning rate")):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if axes is not rate:
            axes.legend()
    figure.savefig(target, dpi=110)


if __name__ == "__main__":
    draw(TrainResult.load(Path(sys.argv[1])), TARGET)
