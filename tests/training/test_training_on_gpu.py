"""Training on a GPU: ``pytest -m gpu tests``."""

from __future__ import annotations

import pytest
import torch

from mirnet.errors import TrainingError

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("change", ["precision=bf16", "precision=fp16", "compile=true"])
def test_learns_as_eager_float32_does(train, small_params, in_process, change):
    longer = ("train.num_epochs=3", "train.steps_per_epoch=6", "train.patch_size=32")
    exact = train(small_params(*longer), in_process, run_name="exact")
    other = train(small_params(*longer, f"train.{change}"), in_process, run_name="other")
    for one, two in zip(exact.history, other.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=0.03)
        assert two.val_psnr == pytest.approx(one.val_psnr, abs=0.3)
        assert two.gpu_s > 0


def test_too_little_memory_says_what_to_lower(train, small_params, in_process):
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(2**28 / total)
    try:
        with pytest.raises(TrainingError, match=r"train\.accumulate.*train\.patch_size"):
            train(
                small_params("train.patch_size=40", "train.batch_size=256", "model.n_feat=64"),
                in_process,
            )
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
