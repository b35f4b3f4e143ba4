"""Each option of the recipe does what it says, and nothing when it is off."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mirnet.errors import TrainingError, WeightsError
from mirnet.models import build, load_model, save_model
from mirnet.params import ModelParams
from mirnet.training import loop
from mirnet.training.losses import combined


def _last(result):
    return result.history[-1]


def _weights(folder):
    return torch.cat([p.flatten() for p in load_model(Path(folder)).parameters()])


def test_accumulation_gives_the_same_run_in_parts(train, small_params, in_process):
    whole = train(small_params(), in_process, run_name="whole")
    parts = train(small_params("train.accumulate=2"), in_process, run_name="parts")
    for one, other in zip(whole.history, parts.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=1e-3)


def test_the_moving_average_is_what_is_scored_and_exported(
    train, small_params, in_process, tmp_path
):
    rate, average = "train.lr=0.05", "train.ema_decay=0.9999"
    raw = train(small_params(rate), in_process, run_name="raw", model_dir=tmp_path / "raw")
    slow = train(
        small_params(rate, average), in_process, run_name="slow", model_dir=tmp_path / "slow"
    )
    assert _last(slow).train_loss == _last(raw).train_loss  # training itself is untouched
    assert _last(slow).val_psnr != _last(raw).val_psnr
    assert not torch.equal(_weights(slow.model_dir), _weights(raw.model_dir))


def test_a_clipped_gradient_cannot_move_the_weights_far(train, small_params, in_process):
    # Adam is blind to the scale of gradients, so the norm itself is looked at
    free = train(small_params("train.grad_clip=null"), in_process, run_name="free")
    tight = train(small_params("train.grad_clip=0.001"), in_process, run_name="tight")
    assert free.history[0].grad_norm > 0.001  # what is reported is the norm before clipping
    assert _last(tight).train_loss != _last(free).train_loss


@pytest.mark.parametrize(
    "override",
    [
        "train.mixup_alpha=1.2",
        "train.symmetries=false",
        "train.optimizer=adam",
        "train.loss={charbonnier: 1, ssim: 0.5}",
        "train.progressive=[{start: 0.5, patch_size: 24, batch_size: 4}]",
        "train.schedule=constant",
        "train.warmup_steps=0",
        "train.seed=1",
    ],
)
def test_each_option_changes_the_run(train, small_params, in_process, override):
    result = train(small_params("train.weight_decay=0.1", override), in_process, run_name="with")
    base = train(small_params("train.weight_decay=0.1"), in_process, run_name="without")
    assert _last(result).train_loss != _last(base).train_loss


def test_warm_start_begins_where_the_other_ended(train, small_params, in_process, tmp_path):
    first = train(
        small_params("train.num_epochs=3", "train.steps_per_epoch=8", "train.lr=0.004"),
        in_process,
        run_name="first",
    )
    start = Path(shutil.copytree(first.model_dir, tmp_path / "start"))
    still = small_params("train.num_epochs=1", "train.steps_per_epoch=1", "train.lr=1e-12")
    warm = train(still, in_process, run_name="warm", init_from=start)
    assert warm.best_val_psnr == pytest.approx(first.best_val_psnr, abs=1e-3)
    cold = train(still, in_process, run_name="cold")
    assert cold.best_val_psnr < first.best_val_psnr - 0.5


def test_warm_start_from_another_architecture_is_refused(train, small_params, in_process, tmp_path):
    other = save_model(build(ModelParams(name="mirnet-xs", n_feat=16)), tmp_path / "other")
    with pytest.raises(WeightsError, match=r"other does not fit model\.name mirnet-xs"):
        train(small_params(), in_process, init_from=other)


def test_distillation_pulls_towards_the_teacher(train, small_params, in_process, tmp_path):
    torch.manual_seed(0)
    teacher = save_model(build(ModelParams(name="mirnet-xs", n_feat=8)), tmp_path / "teacher")
    plain = train(small_params(), in_process, run_name="plain")
    taught = train(small_params(), in_process, run_name="taught", distill_from=teacher)
    heavy = small_params("train.distill_weight=100")
    driven = train(heavy, in_process, run_name="driven", distill_from=teacher)
    assert _last(plain).train_loss < _last(taught).train_loss < _last(driven).train_loss


def test_training_stops_early_when_nothing_gets_better(train, small_params, in_process):
    params = small_params("train.num_epochs=9", "train.lr=1e-15", "train.early_stop=2")
    result = train(params, in_process)
    assert len(result.history) == 3
    again = train(params, in_process)
    assert again.history == result.history


def test_validation_every_other_epoch_and_at_the_end(train, small_params, in_process):
    params = small_params("train.num_epochs=3", "train.validate_every=2")
    scored = [m.val_psnr is not None for m in train(params, in_process).history]
    assert scored == [False, True, True]


def test_a_rollback_goes_on_with_half_the_rate(train, small_params, in_process, monkeypatch):
    calls = []

    def poisoned_once(output, target, recipe):
        calls.append(1)
        losses = combined(output, target, recipe)
        return losses * float("nan") if len(calls) == 5 else losses  # in the second epoch

    monkeypatch.setattr(loop, "combined", poisoned_once)
    params = small_params("train.on_nonfinite=rollback", "train.schedule=constant")
    result = train(params, in_process)
    assert [m.lr for m in result.history] == [0.002, 0.001]
    assert len(calls) == 3 + 2 + 3


def test_endless_rollbacks_end_the_run_with_the_pairs(train, small_params, in_process, monkeypatch):
    def poisoned(output, target, recipe):
        return combined(output, target, recipe) * float("nan")

    monkeypatch.setattr(loop, "combined", poisoned)
    with pytest.raises(TrainingError, match=r"step 0: .*our485/\d\.png"):
        train(small_params("train.on_nonfinite=rollback"), in_process)


def test_a_resumed_run_with_everything_on_equals_an_uninterrupted_one(
    train, small_params, in_process
):
    class Interrupt(Exception):
        pass

    params = small_params(
        "train.num_epochs=3",
        "train.ema_decay=0.8",
        "train.mixup_alpha=1.2",
        "train.accumulate=2",
        "train.progressive=[{start: 0.4, patch_size: 24, batch_size: 2}]",
        "train.loss={charbonnier: 1, edge: 0.1}",
        "train.checkpoint_every=2",
    )
    whole = train(params, in_process, run_name="whole")

    def stop(metrics):
        if metrics.epoch == 1:
            raise Interrupt

    with pytest.raises(Interrupt):
        train(params, in_process, run_name="broken", on_epoch=stop)
    resumed = train(params, in_process, run_name="broken")
    assert resumed.best_val_psnr == whole.best_val_psnr
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert (one.train_loss, one.val_psnr) == (other.train_loss, other.val_psnr)


def test_a_run_killed_within_an_epoch_loses_only_the_steps_since_its_checkpoint(
    train, small_params, in_process, monkeypatch
):
    params = small_params("train.steps_per_epoch=6", "train.checkpoint_every=2")
    whole = train(params, in_process, run_name="whole")
    calls = []

    def dies_at_step_5(output, target, recipe):
        calls.append(1)
        if len(calls) == 6:
            raise OSError("power cut")
        return combined(output, target, recipe)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "combined", dies_at_step_5)
        with pytest.raises(OSError, match="power cut"):
            train(params, in_process, run_name="cut")
    calls.clear()

    def counting(output, target, recipe):
        calls.append(1)
        return combined(output, target, recipe)

    monkeypatch.setattr(loop, "combined", counting)
    resumed = train(params, in_process, run_name="cut")
    assert len(calls) == 12 - 4  # went on at step 4, the last checkpoint
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-12)
        assert other.val_psnr == one.val_psnr
