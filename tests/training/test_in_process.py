"""Training in this process: results, resume, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mirnet.data.loading import load_pairs
from mirnet.errors import DataError, TrainingError, UsageError
from mirnet.evaluation.metrics import psnr
from mirnet.models import load_model
from mirnet.objectives.total import combined
from mirnet.training import loop


class Interrupt(Exception):
    pass


def _figures(result):
    """What must not change by an interruption: all but times."""
    return [
        (m.epoch, m.step, m.lr, m.train_loss, m.train_psnr, m.val_psnr, m.val_ssim, m.grad_norm)
        for m in result.history
    ]


def _interrupt_after(epochs):
    def on_epoch(metrics):
        if metrics.epoch + 1 == epochs:
            raise Interrupt

    return on_epoch


def test_training_learns_and_exports_the_best(train, small_params, in_process, tmp_path):
    seen = []
    params = small_params("train.num_epochs=4", "train.steps_per_epoch=8", "train.lr=0.004")
    result = train(params, in_process, on_epoch=seen.append, mlflow_run_id="abc")

    assert tuple(seen) == result.history
    assert [m.step for m in seen] == [8, 16, 24, 32]
    assert seen[-1].train_loss < 0.8 * seen[0].train_loss
    assert result.best_val_psnr == max(m.val_psnr for m in seen)
    assert seen[result.best_epoch].val_psnr == result.best_val_psnr
    assert (result.run_id, result.digest, result.num_workers) == ("abc", "d1", 1)


def test_the_exported_model_scores_what_the_result_says(
    train, small_params, in_process, tmp_path, pairs_dir, val_ids
):
    result = train(small_params(), in_process)
    model = load_model(Path(result.model_dir)).eval()
    scores = []
    for low, high in load_pairs(pairs_dir, val_ids):
        # 16 mirrored pixels on each side, and more at the bottom up to a multiple of 16
        padded = np.pad(low, ((16, 24), (16, 16), (0, 0)), mode="reflect")
        batch = torch.from_numpy(padded).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            output = model(batch)[0, :, 16:56, 16:64].clamp(0, 1)
        enhanced = (output * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
        scores.append(psnr(enhanced, high))
    assert result.best_val_psnr == pytest.approx(np.mean(scores), abs=1e-3)


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
def test_resumed_equals_uninterrupted(train, small_params, in_process, tmp_path, schedule):
    params = small_params(
        f"train.schedule={schedule}", "train.num_epochs=3", "train.plateau_patience=0"
    )
    whole = train(params, in_process, run_name="whole")
    with pytest.raises(Interrupt):
        train(params, in_process, run_name="broken", on_epoch=_interrupt_after(1))
    seen = []
    resumed = train(params, in_process, run_name="broken", on_epoch=seen.append)

    assert [m.epoch for m in seen] == [1, 2]  # the first epoch was not done again
    assert _figures(resumed) == _figures(whole)
    assert resumed.best_epoch == whole.best_epoch


def test_a_finished_run_is_not_trained_again(train, small_params, in_process, tmp_path):
    first = train(small_params(), in_process)
    seen = []
    again = train(small_params(), in_process, on_epoch=seen.append, model_dir=tmp_path / "again")
    assert seen == []
    assert again.history == first.history
    assert (tmp_path / "again" / "weights.safetensors").is_file()


def test_a_run_name_of_another_recipe_is_refused(train, small_params, in_process):
    train(small_params(), in_process)
    with pytest.raises(TrainingError, match=r"train\.lr 0\.002, not 0\.001"):
        train(small_params("train.lr=0.001"), in_process)
    with pytest.raises(TrainingError, match="digest 'd1', not 'd2'"):
        train(small_params(), in_process, digest="d2")


def test_a_run_of_version_0_1_goes_on(train, small_params, in_process):
    """Its fingerprint had the sizes that were not given as null."""
    train(small_params("train.num_epochs=1"), in_process, run_name="old")
    (path,) = in_process.workspace.rglob("progress.json")
    written = json.loads(path.read_text())
    written["fingerprint"] |= {"model.num_rrg": None, "model.num_msrb": None}
    path.write_text(json.dumps(written))
    again = train(small_params("train.num_epochs=1"), in_process, run_name="old")
    assert len(again.history) == 1


def test_a_gradient_that_is_not_finite_ends_the_run_before_the_step(
    train, small_params, in_process, monkeypatch, tmp_path
):
    def poisoned(*given):
        losses, parts = combined(*given)
        return losses * float("nan"), parts

    monkeypatch.setattr(loop, "combined", poisoned)
    with pytest.raises(TrainingError, match=r"step 0: .*not finite.*our485/\d\.png"):
        train(small_params(), in_process)
    assert not (tmp_path / "model").exists()


def test_a_missing_pair_and_a_small_pair_are_named(train, small_params, in_process):
    with pytest.raises(DataError, match=r"99\.png"):
        train(small_params(), in_process, train_ids=["our485/99.png"])
    with pytest.raises(DataError, match=r"our485/1\.png is 48x40.*patch of 64.*train\.patch_size"):
        train(small_params("train.patch_size=64"), in_process)


def test_requests_that_cannot_work_are_refused_before_the_start(
    train, small_params, in_process, settings
):
    with pytest.raises(UsageError, match=r"our485/1\.png is a training pair and"):
        train(small_params(), in_process, val_ids=["our485/1.png"])
    with pytest.raises(UsageError, match="no validation pairs"):
        train(small_params(), in_process, val_ids=[])
    with pytest.raises(UsageError, match="run name"):
        train(small_params(), in_process, run_name="../up")
    three = settings.model_copy(update={"num_workers": "3"})
    with pytest.raises(UsageError, match=r"batch_size 4 .*MIRNET_NUM_WORKERS 3"):
        train(small_params(), three)
    gopher = in_process.model_copy(update={"storage_uri": "gopher://hole"})
    with pytest.raises(UsageError, match="MIRNET_STORAGE_URI gopher://hole"):
        train(small_params(), gopher)
