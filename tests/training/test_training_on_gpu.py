"""Training on a GPU: ``pytest -m gpu tests``."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mirnet.errors import TrainingError
from mirnet.training.data.on_device import DevicePairs, fits
from mirnet.training.data.pairs import pack_pairs
from mirnet.training.data.sampling import Sampler, load_batch

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


def test_pairs_that_fit_are_cut_on_the_device(small_params):
    rng = np.random.default_rng(0)
    shots = [tuple(rng.integers(0, 256, (2, 90, 120, 3), dtype=np.uint8)) for _ in range(4)]
    pairs = pack_pairs(["a", "b", "c", "d"], shots)
    params = small_params("train.batch_size=16", "train.patch_size=64", "train.mixup_alpha=1.2")
    draws = Sampler(params.train, num_pairs=4, total_steps=10).draws(0)
    device = torch.device("cuda")
    assert fits(pairs, device)
    found = DevicePairs(pairs, device).load_batch(draws, patch_size=64)
    for one, other in zip(found, load_batch(pairs, draws, patch_size=64), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=1e-7)  # MixUp may be fused
