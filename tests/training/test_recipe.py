"""Each option of the recipe does what it says, and nothing when it is off."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from mirnet.errors import TrainingError, WeightsError
from mirnet.models import build, load_model, save_model
from mirnet.objectives.total import combined
from mirnet.training import loop
from mirnet.training.checkpoints import TrainState


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
    train, small_params, in_process, tmp_path, monkeypatch
):
    base = ("train.lr=0.01", "train.num_epochs=1", "train.steps_per_epoch=4")
    raw = train(small_params(*base), in_process, run_name="raw", model_dir=tmp_path / "raw")
    steps, update = [], TrainState.update

    def watched(state):
        update(state)
        steps.append(torch.cat([p.detach().flatten() for p in state.model.parameters()]).clone())

    monkeypatch.setattr(TrainState, "update", watched)
    average = small_params(*base, "train.ema_decay=0.7")
    slow = train(average, in_process, run_name="slow", model_dir=tmp_path / "slow")
    assert _last(slow).train_loss == _last(raw).train_loss  # training itself is untouched
    expected = steps[0]
    for weights in steps[1:]:
        expected = 0.7 * expected + 0.3 * weights
    torch.testing.assert_close(_weights(slow.model_dir), expected)
    assert not torch.allclose(_weights(raw.model_dir), expected, rtol=1e-3)


def test_the_optimiser_is_given_clipped_gradients(train, small_params, in_process, monkeypatch):
    given: dict[str, list[float]] = {"free": [], "tight": []}
    update = TrainState.update

    def watched(state):
        grads = [p.grad for p in state.model.parameters() if p.grad is not None]
        given[name].append(float(torch.nn.utils.get_total_norm(grads)))
        update(state)

    monkeypatch.setattr(TrainState, "update", watched)
    for name, limit in (("free", "null"), ("tight", "0.001")):
        result = train(small_params(f"train.grad_clip={limit}"), in_process, run_name=name)
        assert result.history[0].grad_norm > 0.001  # what is reported is the norm before clipping
    assert min(given["free"]) > 0.001
    assert given["tight"] == pytest.approx([0.001] * 6, rel=1e-3)


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
    other = save_model(build("mirnet-xs", n_feat=16), tmp_path / "other")
    with pytest.raises(WeightsError, match=r"other does not fit model\.name mirnet-xs"):
        train(small_params(), in_process, init_from=other)


def test_distillation_pulls_towards_the_teacher(train, small_params, in_process, tmp_path):
    torch.manual_seed(0)
    teacher = save_model(build("mirnet-xs", n_feat=8), tmp_path / "teacher")
    picture = torch.rand(1, 3, 40, 48) / 4
    wanted = load_model(teacher)(picture).detach()

    def distance(name: str, *overrides: str, **changes: Path) -> float:
        params = small_params("train.num_epochs=1", "train.steps_per_epoch=12", *overrides)
        result = train(params, in_process, run_name=name, model_dir=tmp_path / name, **changes)
        return float((load_model(Path(result.model_dir))(picture) - wanted).detach().abs().mean())

    plain = distance("plain")
    driven = distance("driven", "train.distill_weight=100", distill_from=teacher)
    assert driven < plain / 2


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


def test_bf16_learns_as_float32_does(train, small_params, in_process):
    recipe = ("train.num_epochs=1", "train.steps_per_epoch=10")
    whole = train(small_params(*recipe), in_process, run_name="whole")
    half = train(small_params(*recipe, "train.precision=bf16"), in_process, run_name="half")
    assert _last(half).train_loss == pytest.approx(_last(whole).train_loss, rel=0.02)
    assert _last(half).train_loss != _last(whole).train_loss


def test_an_infinite_loss_stops_before_the_optimiser_though_its_gradient_is_finite(
    train, small_params, in_process, monkeypatch
):
    def infinite(*given):
        losses, parts = combined(*given)
        return losses + float("inf"), parts

    updates = []
    monkeypatch.setattr(loop, "combined", infinite)
    monkeypatch.setattr(TrainState, "update", updates.append)
    with pytest.raises(TrainingError, match=r"step 0: loss or gradient is not finite.*our485/\d"):
        train(small_params(), in_process)
    assert not updates


def test_checkpoints_come_as_often_as_asked_and_at_the_end(
    train, small_params, in_process, monkeypatch
):
    saved, save = [], TrainState.save

    def watched(state, folder):
        saved.append(state.progress.step)
        save(state, folder)

    monkeypatch.setattr(TrainState, "save", watched)
    result = train(small_params("train.num_epochs=3", "train.checkpoint_every=4"), in_process)
    assert saved == [4, 8, 9]
    assert [m.step for m in result.history] == [3, 6, 9]


def test_other_pairs_are_another_run(train, small_params, in_process, train_ids, val_ids):
    train(small_params(), in_process)
    swapped = {"train_ids": (*train_ids[:-1], val_ids[0]), "val_ids": (train_ids[-1], *val_ids[1:])}
    with pytest.raises(TrainingError, match="this run was started with pairs"):
        train(small_params(), in_process, **swapped)


def test_scratch_of_dead_processes_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names = ("mirnet-checkpoint-999999999-a", f"mirnet-checkpoint-{os.getpid()}-b", "other-999-c")
    for name in names:
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / "mirnet-checkpoint-999999999-new").mkdir()
    loop.sweep_scratch()
    assert {path.name for path in tmp_path.iterdir()} == {
        *names[1:],
        "mirnet-checkpoint-999999999-new",
    }


def test_a_rollback_goes_on_with_half_the_rate(train, small_params, in_process, monkeypatch):
    calls = []

    def poisoned_once(*given):
        calls.append(1)
        losses, parts = combined(*given)
        return (losses * float("nan") if len(calls) == 5 else losses), parts  # in the second epoch

    monkeypatch.setattr(loop, "combined", poisoned_once)
    params = small_params("train.on_nonfinite=rollback", "train.schedule=constant")
    result = train(params, in_process)
    assert [m.lr for m in result.history] == [0.002, 0.001]
    assert len(calls) == 3 + 2 + 3


def test_endless_rollbacks_end_the_run_with_the_pairs(train, small_params, in_process, monkeypatch):
    def poisoned(*given):
        losses, parts = combined(*given)
        return losses * float("nan"), parts

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
    calls, seconds_before = [], 2 * whole.history[0].seconds + 0.5

    def dies_at_step_5(*given):
        calls.append(1)
        if len(calls) == 3:
            time.sleep(seconds_before)
        if len(calls) == 6:
            raise OSError("power cut")
        return combined(*given)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "combined", dies_at_step_5)
        with pytest.raises(OSError, match="power cut"):
            train(params, in_process, run_name="cut")
    calls.clear()

    def counting(*given):
        calls.append(1)
        return combined(*given)

    monkeypatch.setattr(loop, "combined", counting)
    resumed = train(params, in_process, run_name="cut")
    assert len(calls) == 12 - 4  # went on at step 4, the last checkpoint
    # both parts of the epoch count, by time as by steps
    assert resumed.history[0].seconds > seconds_before
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-12)
        assert other.val_psnr == one.val_psnr
