"""Validation on whole images: each scored exactly once, whatever the number of workers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mirnet.evaluation import metrics
from mirnet.models import Network
from mirnet.models.margin import Margined
from mirnet.params import TrainPrecision
from mirnet.training.acceleration import autocast
from mirnet.training.context import Context
from mirnet.training.data.pairs import PackedPairs, Pixels


@dataclass(frozen=True)
class Scores:
    """Values of each validation image, float64 (N,), equal on all workers.

    ``outputs`` are the kept images that this worker scored, uint8 HWC RGB by their index.
    """

    loss: Tensor
    psnr: Tensor
    ssim: Tensor
    outputs: dict[int, Pixels] = field(default_factory=dict)

    def means(self) -> dict[str, float]:
        """Means over the images, by the names of :class:`~mirnet.results.EpochMetrics`."""
        return {
            "val_loss": float(self.loss.mean()),
            "val_psnr": float(self.psnr.mean()),
            "val_ssim": float(self.ssim.mean()),
        }


@torch.inference_mode()
def validate(
    context: Context,
    model: Network,
    pairs: PackedPairs,
    *,
    precision: TrainPrecision,
    keep: Collection[int] = (),
) -> Scores:
    """L1 on the raw output, PSNR and SSIM on 8-bit images, of every pair.

    Args:
        keep: indices of the pairs whose output is kept.
    """
    outputs = {}
    model.eval()
    table = torch.zeros(3, len(pairs), dtype=torch.float64, device=context.device)
    for index in range(context.rank, len(pairs), context.world_size):
        low, high = pairs.pair(index)
        output = _forward(model, _to_batch(low, context.device), precision)
        enhanced = metrics.to_uint8(output)[0].permute(1, 2, 0).cpu().numpy()
        table[0, index] = (output - _to_batch(high, context.device)).abs().mean()
        table[1, index] = metrics.psnr(enhanced, high)
        table[2, index] = metrics.ssim(enhanced, high)
        if index in keep:
            outputs[index] = enhanced
    model.train()
    loss, psnr, ssim = context.sum(table).cpu().unbind()
    return Scores(loss, psnr, ssim, outputs)


def _to_batch(image: Pixels, device: torch.device) -> Tensor:
    """uint8 HWC RGB -> float32 (1, 3, H, W) in [0, 1]."""
    batch = torch.from_numpy(image.copy()).permute(2, 0, 1)[None]
    return batch.to(device).float().div(255)


def _forward(model: Network, low: Tensor, precision: TrainPrecision) -> Tensor:
    # whole images of many sizes: a compilation for each would cost more than it gives
    with autocast(precision, low.device), torch.compiler.set_stance("force_eager"):
        output: Tensor = Margined(model)(low)
    return output.float()
