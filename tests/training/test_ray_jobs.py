"""Training as a job of a real Ray cluster with its dashboard, over a shared folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
from ray.job_submission import JobStatus, JobSubmissionClient

from mirnet.config import Settings, child_environment
from mirnet.errors import ServiceError, TrainingError, UsageError
from mirnet.storage.s3server import free_ports


@pytest.fixture(autouse=True)
def _no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """A Ray head of its own process group; its Jobs API address."""
    port, gcs = free_ports(2)
    folder = tempfile.mkdtemp(prefix="rj", dir="/tmp")
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
    command += ["--num-cpus=2", "--node-ip-address=127.0.0.1", f"--port={gcs}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    command += [f"--temp-dir={folder}", "--object-store-memory=200000000"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = child_environment(PATH=path, RAY_AUTH_MODE="disabled")
    with subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.DEVNULL
    ) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait_for(address)
            yield address
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # it would drain for half a minute
            process.wait(timeout=60)


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + 180
    while True:
        try:
            JobSubmissionClient(address).list_jobs()
            return
        except (ConnectionError, RuntimeError):
            assert time.monotonic() < deadline, f"no Ray at {address} after three minutes"
            time.sleep(1)


def _on(address: str, settings: Settings, tmp_path: Path) -> Settings:
    changes = {"ray_address": address, "storage_uri": str(tmp_path / "store"), "num_workers": "2"}
    return settings.model_copy(update=changes)


@pytest.mark.slow
def test_a_job_trains_and_a_second_request_follows_the_first(
    head, train, small_params, settings, tmp_path
):
    client, seen, twice = JobSubmissionClient(head), [], []
    params = small_params("train.num_epochs=3")
    place = _on(head, settings, tmp_path)
    earlier = tmp_path / "store" / "r1" / "events" / "earlier"
    earlier.mkdir(parents=True)

    def follower() -> None:
        while not client.list_jobs():
            time.sleep(0.5)
        result = train(
            params, place, run_name="r1", model_dir=tmp_path / "b", on_epoch=twice.append
        )
        twice.append(result)

    thread = Thread(target=follower)
    thread.start()
    result = train(params, place, run_name="r1", model_dir=tmp_path / "a", on_epoch=seen.append)
    thread.join()
    assert [m.epoch for m in seen] == [0, 1, 2]
    assert tuple(seen) == result.history == twice[-1].history
    assert [job.submission_id for job in client.list_jobs()] == ["mirnet-r1"]
    assert (tmp_path / "a" / "weights.safetensors").is_file()
    assert len(list(earlier.parent.iterdir())) == 1 and not earlier.exists()


@pytest.mark.slow
def test_an_interrupted_client_ends_its_job(head, train, small_params, settings, tmp_path):
    client = JobSubmissionClient(head)

    def interrupt(metrics):
        raise KeyboardInterrupt

    params = small_params("train.num_epochs=400")
    with pytest.raises(KeyboardInterrupt):
        train(params, _on(head, settings, tmp_path), run_name="r2", on_epoch=interrupt)
    deadline = time.monotonic() + 60
    while client.get_job_status("mirnet-r2") != JobStatus.STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.5)


@pytest.mark.slow
def test_a_job_that_fails_says_why(head, train, small_params, settings, tmp_path):
    place = _on(head, settings, tmp_path)
    params = small_params("train.grad_clip=null", "train.loss={l2: 1.0e+30}")
    with pytest.raises(TrainingError, match=r"job mirnet-r3 on http.*gradient is not finite"):
        train(params, place, run_name="r3")


def test_a_store_of_this_machine_alone_is_refused(train, small_params, settings):
    place = settings.model_copy(update={"ray_address": "http://127.0.0.1:1"})
    with pytest.raises(UsageError, match="MIRNET_STORAGE_URI"):
        train(small_params(), place)


def test_a_jobs_address_where_nobody_answers_is_named(train, small_params, settings, tmp_path):
    place = _on("http://127.0.0.1:1", settings, tmp_path)
    with pytest.raises(ServiceError, match=r"http://127\.0\.0\.1:1 .*MIRNET_RAY_ADDRESS"):
        train(small_params(), place)
