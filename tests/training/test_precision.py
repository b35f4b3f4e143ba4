"""Half precision with its loss scaler, out of memory, compiled blocks."""

from __future__ import annotations

import pytest
import torch

from mirnet.errors import TrainingError, UsageError
from mirnet.hardware import find_compiler
from mirnet.objectives.total import combined
from mirnet.params import load_params
from mirnet.training import loop
from mirnet.training.checkpoints import TrainState


def _scales(monkeypatch):
    """The loss scale before every optimiser step, as the runs to come go on."""
    seen = []
    update = TrainState.update

    def recording(self):
        seen.append((self.progress.step, self.scaler.get_scale()))
        update(self)

    monkeypatch.setattr(TrainState, "update", recording)
    return seen


def test_fp16_learns_as_float32_does(train, small_params, in_process):
    longer = ("train.num_epochs=3", "train.steps_per_epoch=6")
    exact = train(small_params(*longer), in_process, run_name="exact")
    half = train(small_params(*longer, "train.precision=fp16"), in_process, run_name="half")
    for one, other in zip(exact.history, half.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=0.02)
        assert other.grad_norm == pytest.approx(one.grad_norm, rel=0.1)  # as if never scaled
    assert half.history[0].train_loss != exact.history[0].train_loss


def test_a_precision_that_rounds_too_much_for_the_network_is_refused(train, in_process):
    params = load_params("cpu-mirnet", overrides=("model.name=llflow-s", "train.precision=bf16"))
    with pytest.raises(UsageError, match="LLFlow is not accurate in bf16: precision=float32"):
        train(params, in_process)


def test_an_overflow_halves_the_scale_and_repeats_the_batch(
    train, small_params, in_process, monkeypatch
):
    scales, calls = _scales(monkeypatch), []

    def overflows_twice(*given):
        calls.append(given[0].high)
        losses, parts = combined(*given)
        return (losses * float("inf") if len(calls) in (2, 3) else losses), parts

    monkeypatch.setattr(loop, "combined", overflows_twice)
    train(small_params("train.precision=fp16", "train.num_epochs=1"), in_process)
    first, *later = scales
    assert [step for step, _ in scales] == [0, 1, 2]  # every step once
    assert {scale for _, scale in later} == {first[1] / 4}
    assert torch.equal(calls[1], calls[2])
    assert torch.equal(calls[2], calls[3])


def test_a_repeated_batch_counts_once_in_running_statistics(
    train, small_params, in_process, monkeypatch
):
    calls, found = [], []
    update = TrainState.update

    def overflows_once(*given):
        calls.append(1)
        losses, parts = combined(*given)
        return (losses * float("inf") if len(calls) == 2 else losses), parts

    def recording(self):
        buffers = dict(self.model.named_buffers())
        found.append({int(v) for name, v in buffers.items() if name.endswith("batches_tracked")})
        update(self)

    monkeypatch.setattr(loop, "combined", overflows_once)
    monkeypatch.setattr(TrainState, "update", recording)
    params = load_params(
        "cpu",
        overrides=(
            *("model.name=mobileie", "model.channels=3", "model.expansion=1"),
            *("train.num_epochs=1", "train.steps_per_epoch=3", "train.batch_size=2"),
            *("train.patch_size=16", "train.precision=fp16", "train.compile=false"),
            *("train.progressive=[]", "train.ema_decay=null", "train.loss={l1: 1}"),
        ),
    )
    train(params, in_process)
    assert len(calls) == 4
    assert found == [{1}, {2}, {3}]


def test_what_no_scale_can_heal_ends_the_run_with_the_pairs(
    train, small_params, in_process, monkeypatch
):
    def poisoned(*given):
        losses, parts = combined(*given)
        return losses * float("nan"), parts

    monkeypatch.setattr(loop, "combined", poisoned)
    with pytest.raises(TrainingError, match=r"step 0: .*not finite.*our485/\d\.png"):
        train(small_params("train.precision=fp16"), in_process)


def test_the_scale_outlives_a_restart(train, small_params, in_process, monkeypatch):
    scales, calls = _scales(monkeypatch), []

    def overflows_once(*given):
        calls.append(1)
        losses, parts = combined(*given)
        return (losses * float("inf") if len(calls) == 1 else losses), parts

    def stop(metrics):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "combined", overflows_once)
    params = small_params("train.precision=fp16")
    with pytest.raises(KeyboardInterrupt):
        train(params, in_process, on_epoch=stop)
    before = scales[-1]
    train(params, in_process)
    assert (before[0], scales[3][0]) == (2, 3)
    assert scales[3][1] == before[1] == scales[0][1]


def test_out_of_memory_says_what_to_lower(train, small_params, in_process, monkeypatch):
    def too_much(*given):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(loop, "combined", too_much)
    with pytest.raises(TrainingError, match=r"train\.accumulate.*train\.batch_size.*20\.00 GiB"):
        train(small_params(), in_process)


@pytest.mark.slow
@pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler")
def test_compiled_blocks_give_the_losses_of_eager_ones(train, small_params, in_process):
    changes = ("train.patch_size=32", "train.ema_decay=0.9")
    eager = train(small_params(*changes), in_process, run_name="eager")
    fast = train(small_params(*changes, "train.compile=true"), in_process, run_name="fast")
    for one, other in zip(eager.history, fast.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert other.val_psnr == pytest.approx(one.val_psnr, abs=1e-2)
