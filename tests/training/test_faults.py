"""Faults of one process: kills, half-written checkpoints, full disks, a store that refuses."""

from __future__ import annotations

import random
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from mirnet.errors import StorageError, TrainingError
from mirnet.results import TrainResult
from mirnet.storage.s3server import S3Server
from tests.fault_proxy import FaultProxy
from tests.training.children import Children, as_overrides, wait_until

OFTEN = ("train.num_epochs=3", "train.steps_per_epoch=40", "train.checkpoint_every=4")


class PowerCut(BaseException):
    """Nothing in the product catches it."""


def losses(result: TrainResult) -> list[tuple[int, float, float | None]]:
    return [(m.step, m.train_loss, m.val_psnr) for m in result.history]


def assert_same(result: TrainResult, whole: TrainResult) -> None:
    """Equal to the last digits: a begun epoch's sums are added up in another order."""
    for (step, loss, psnr), (step_, loss_, psnr_) in zip(
        losses(result), losses(whole), strict=True
    ):
        assert (step, psnr) == (step_, psnr_)
        assert loss == pytest.approx(loss_, rel=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_process_killed_anywhere_goes_on_when_started_again(
    seed, children: Children, train, small_params, in_process, tmp_path
):
    overrides = [*as_overrides(small_params()), *OFTEN]
    rng = random.Random(seed)
    latest = in_process.workspace / "training" / "cut" / "in-process" / "latest"
    wanted, pause = rng.randrange(1, 20), rng.random() * 0.2
    child = children.start(overrides, in_process, "cut")
    wait_until(lambda: latest.exists() and _number(latest) >= wanted, child)
    time.sleep(pause)
    child.kill()
    child.wait(timeout=60)
    assert _number(latest) < 30  # it was in the middle

    params = small_params(*OFTEN)
    assert_same(
        train(params, in_process, run_name="cut"), train(params, in_process, run_name="whole")
    )


def _number(latest: Path) -> int:
    return int(latest.read_text().removeprefix("checkpoint_") or 0)


def test_a_half_written_checkpoint_is_not_there(
    train, small_params, in_process, monkeypatch, tmp_path
):
    params = small_params("train.num_epochs=4")
    whole = train(params, in_process, run_name="whole")
    copies, copy = [], fs.copy_files

    def cut_in_the_third(source, target, *filesystems):
        copies.append(target)
        if len(copies) == 3:
            Path(target, "weights.safetensors").write_bytes(b"half")
            raise PowerCut
        copy(source, target, *filesystems)

    with monkeypatch.context() as patch:
        patch.setattr(fs, "copy_files", cut_in_the_third)
        with pytest.raises(PowerCut):
            train(params, in_process, run_name="cut")
    seen = []
    resumed = train(params, in_process, run_name="cut", on_epoch=seen.append)
    assert [m.epoch for m in seen] == [2, 3]  # two whole checkpoints were there
    assert losses(resumed) == losses(whole)


def test_a_damaged_checkpoint_is_named(train, small_params, in_process):
    train(small_params(), in_process)
    (folder,) = (in_process.workspace / "training" / "run" / "in-process").glob("checkpoint_*")
    for name in ("weights.safetensors", "optimizer.pt"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(TrainingError, match="is damaged"):
            train(small_params(), in_process)
        (folder / name).write_bytes(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of six megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=6m", "none", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount here")
    if done.returncode != 0:
        pytest.skip(f"no small disk can be made here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_ends_the_run_and_it_goes_on_when_there_is_room(
    small_disk, train, small_params, in_process
):
    params = small_params("train.num_epochs=3")
    place = in_process.model_copy(update={"storage_uri": str(small_disk / "store")})
    seen = []

    def fill(metrics):
        seen.append(metrics.epoch)
        if metrics.epoch == 0:
            with pytest.raises(OSError, match="No space"):
                (small_disk / "fill").write_bytes(bytes(8_000_000))

    with pytest.raises(StorageError, match=r"disk/store/run.*No space left"):
        train(params, place, on_epoch=fill)
    (small_disk / "fill").unlink()
    resumed = train(params, place, on_epoch=lambda metrics: seen.append(metrics.epoch))
    assert seen == [0, 1, 2]
    assert losses(resumed) == losses(train(params, in_process, run_name="whole"))


def test_no_room_for_temporary_files_is_named(
    small_disk, train, small_params, in_process, monkeypatch
):
    (small_disk / "fill").write_bytes(bytes(6_000_000))
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(StorageError, match=r"no checkpoint could be written to .*disk"):
        train(small_params(), in_process)
    assert [path.name for path in small_disk.iterdir()] == ["fill"]


def test_s3_refuses_writes_for_a_while_and_the_run_goes_on(
    s3: str, s3_server: S3Server, train, small_params, in_process
):
    params = small_params("train.num_epochs=3")
    seen = []
    with FaultProxy(s3_server.endpoint_url, "503", rate=0.0) as proxy:
        place = in_process.model_copy(
            update={"storage_uri": s3, "s3_endpoint_url": proxy.url},
        )

        def refuse_for_a_while(metrics):
            seen.append(metrics.epoch)
            if metrics.epoch == 0:
                proxy.rate = 1.0
                threading.Timer(4, setattr, (proxy, "rate", 0.0)).start()

        result = train(params, place, on_epoch=refuse_for_a_while)
        assert proxy.counts["faults"] > 0  # how many depends on the pauses between tries
        again = train(params, place)
    assert seen == [0, 1, 2]
    assert losses(result) == losses(train(params, in_process, run_name="whole"))
    assert losses(again) == losses(result)  # read back from S3


def test_s3_that_denies_is_named_at_once(
    s3: str, s3_server: S3Server, train, small_params, in_process
):
    with FaultProxy(s3_server.endpoint_url, "denied", rate=1.0) as proxy:
        place = in_process.model_copy(update={"storage_uri": s3, "s3_endpoint_url": proxy.url})
        started = time.monotonic()
        with pytest.raises(StorageError, match=r"checkpoint store at s3://test/"):
            train(small_params(), place)
        assert proxy.counts["requests"] < 20, time.monotonic() - started
