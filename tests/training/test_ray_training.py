"""Training on real Ray workers: equal to one process, and alive after faults."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from mirnet.config import Settings
from mirnet.errors import TrainingError
from mirnet.results import EpochMetrics
from tests.training.children import Children, as_overrides, wait_until


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """One Ray for the tests of this file: starting it takes longer than using it."""
    from mirnet.ray_session import ray_session

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers lack this file
    with ray_session(Settings(), num_cpus=2, object_store_bytes=0):
        yield


class EpochFile:
    """Writes epochs to a file: what the controller's process sees."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, metrics: EpochMetrics) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(metrics.model_dump_json() + "\n")

    def read(self) -> list[EpochMetrics]:
        lines = self.path.read_text(encoding="utf-8").splitlines()
        return [EpochMetrics.model_validate_json(line) for line in lines]


class KillsOnce(EpochFile):
    """Ends a training worker, as a machine that loses power would, once."""

    def __init__(self, path: Path, *, after_epoch: int, pause_s: float = 0.0) -> None:
        super().__init__(path)
        self.after_epoch = after_epoch
        self.pause_s = pause_s
        self.killed = path.with_suffix(".killed")

    def __call__(self, metrics: EpochMetrics) -> None:
        super().__call__(metrics)
        if metrics.epoch == self.after_epoch and not self.killed.exists():
            threading.Timer(self.pause_s, self.kill).start()

    def kill(self) -> None:
        victim = min(_siblings("RayTrainWorker"))
        self.killed.write_text(str(victim))
        os.kill(victim, signal.SIGKILL)


def _siblings(title: str) -> list[int]:
    """Processes that our parent, a raylet, started under this title."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
        if command.startswith(b"ray::") and title.encode() in command and parent == os.getppid():
            found.append(int(entry.name))
    return found


def _two_workers(settings: Settings) -> Settings:
    return settings.model_copy(update={"num_workers": "2"})


def test_two_workers_give_the_losses_and_scores_of_one_process(
    ray_here, train, small_params, settings, in_process, tmp_path
):
    overrides = ("train.ema_decay=0.9", "train.loss={charbonnier: 1, edge: 0.1}")
    alone = train(small_params(*overrides), in_process, run_name="alone")
    epochs = EpochFile(tmp_path / "epochs.jsonl")
    both = train(small_params(*overrides), _two_workers(settings), run_name="both", on_epoch=epochs)
    assert both.num_workers == 2
    assert tuple(epochs.read()) == both.history
    for one, two in zip(alone.history, both.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-4)
        assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-3)
        assert two.val_psnr == pytest.approx(one.val_psnr, abs=0.01)
        assert two.val_ssim == pytest.approx(one.val_ssim, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_worker_killed_at_a_random_step_costs_only_those_since_the_checkpoint(
    seed, ray_here, train, small_params, settings, in_process, tmp_path
):
    rng = random.Random(seed)
    params = small_params(
        "train.num_epochs=5", "train.steps_per_epoch=40", "train.checkpoint_every=5"
    )
    whole = train(params, in_process, run_name="whole")
    epochs = KillsOnce(
        tmp_path / "epochs.jsonl", after_epoch=rng.randrange(3), pause_s=rng.random() / 2
    )
    result = train(params, _two_workers(settings), run_name=f"killed{seed}", on_epoch=epochs)
    seen = [m.epoch for m in epochs.read()]
    assert epochs.killed.exists()
    assert sorted(set(seen)) == list(range(5))
    assert len(seen) <= 6  # at most one epoch told twice
    for one, two in zip(whole.history, result.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-3)


@pytest.mark.slow
def test_a_driver_killed_with_its_ray_goes_on_when_started_again(
    children: Children, train, small_params, settings, in_process
):
    # a Ray of the driver's own: what this file shares would outlive it
    recipe = ("train.num_epochs=5", "train.steps_per_epoch=60", "train.checkpoint_every=5")
    params = small_params(*recipe)
    snapshots = settings.workspace / "training" / "cut"
    child = children.start(as_overrides(params), _two_workers(settings), "cut")
    wait_until(lambda: len(list(snapshots.glob("checkpoint_*"))) == 2, child)
    child.kill()
    child.wait(timeout=60)

    second = children.start(as_overrides(params), _two_workers(settings), "cut")
    assert second.wait(timeout=300) == 0
    result = train(params, _two_workers(settings), run_name="cut")  # only reads it
    whole = train(params, in_process, run_name="whole")
    assert [m.epoch for m in result.history] == list(range(5))
    for one, two in zip(whole.history, result.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-3)


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_is_not_tried_again(ray_here, train, small_params, settings):
    with pytest.raises(TrainingError, match=r"step \d+: loss or gradient is not finite.*our485/\d"):
        train(
            small_params("train.lr=1", "train.grad_clip=null", "train.loss={l2: 1.0e+30}"),
            _two_workers(settings),
            run_name="nan",
        )
