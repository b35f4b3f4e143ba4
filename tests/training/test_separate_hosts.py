"""A Ray cluster of three hosts of their own, with faults of hosts and links, over real S3."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from mlflow import MlflowClient
from ray.job_submission import JobStatus, JobSubmissionClient

from mirnet import stages
from mirnet.config import Settings, child_environment
from mirnet.errors import TrainingError
from mirnet.results import DataVersion, EpochMetrics, NodeUsage, ValidationResult
from mirnet.stages import RunConfig
from mirnet.storage.s3server import S3Server
from mirnet.training import TrainingEvent
from tests.fault_proxy import FaultProxy
from tests.training.hosts import DEVICE, OUTSIDE, Hosts, address, missing

pytestmark = pytest.mark.slow
HEAD, SECOND, THIRD = 1, 2, 3
DASHBOARD = f"http://{address(HEAD)}:8265"


@dataclass(frozen=True)
class Cluster:
    """Address of its Jobs API, and what starts Ray on a host."""

    address: str
    start: Callable[[int], None]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Hosts(3) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def store(hosts: Hosts, s3_server: S3Server) -> Iterator[FaultProxy]:
    """The S3 server under an address that all hosts reach."""
    with FaultProxy(s3_server.endpoint_url, "503", rate=0.0, host=OUTSIDE) as gate:
        yield gate


@pytest.fixture(scope="module")
def private() -> Iterator[Path]:
    """A folder that is another one on the third host."""
    folder = Path(tempfile.mkdtemp(prefix="private", dir="/tmp"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(
    hosts: Hosts, store: FaultProxy, s3_server: S3Server, private: Path
) -> Iterator[Cluster]:
    """Ray on all three hosts, a worker each."""
    folders = [tempfile.mkdtemp(prefix="rh", dir="/tmp") for _ in range(3)]
    environment = child_environment(
        PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        GLOO_SOCKET_IFNAME=DEVICE,
        OMP_NUM_THREADS="1",
        RAY_AUTH_MODE="disabled",
        RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S="20",
        AWS_ACCESS_KEY_ID=s3_server.access_key,
        AWS_SECRET_ACCESS_KEY=s3_server.secret_key,
        AWS_REGION="us-east-1",
    )

    def start(host: int) -> None:
        folder = folders[host - 1]
        where = f"--address={address(HEAD)}:6379"
        if host == HEAD:
            where = f"--head --port=6379 --dashboard-host={address(HEAD)} --dashboard-port=8265"
        ray = (
            f"ray start --block {where} --node-ip-address={address(host)} --num-cpus=1 "
            f"--temp-dir={folder} --object-store-memory=100000000"
        )
        command = shlex.split(ray)
        if host == THIRD:
            hidden = f"mount -t tmpfs none {private} && exec {ray}"
            command = ["unshare", "--mount", "sh", "-c", hidden]
        started.append(hosts.start(host, command, environment))

    started: list[subprocess.Popen[bytes]] = []
    start(HEAD)
    _wait_for_nodes(1)
    start(SECOND)
    start(THIRD)
    _wait_for_nodes(3)
    yield Cluster(DASHBOARD, start)
    for host in (THIRD, SECOND, HEAD):
        hosts.kill(host)
    for process in started:
        process.wait(timeout=60)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for_nodes(count: int) -> None:
    import requests

    deadline = time.monotonic() + 180
    while True:
        try:
            answer = requests.get(f"{DASHBOARD}/nodes?view=summary", timeout=10).json()
            alive = [n for n in answer["data"]["summary"] if n["raylet"].get("state") == "ALIVE"]
            if len(alive) >= count:
                return
        except (requests.RequestException, ValueError):
            alive = []
        assert time.monotonic() < deadline, f"{len(alive)} of {count} Ray nodes in three minutes"
        time.sleep(1)


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, s3_server: S3Server) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)


def _elastic(settings: Settings, cluster: Cluster, store: FaultProxy) -> Settings:
    """On the hosts that there are, checkpoints in S3."""
    changes = {
        "ray_address": cluster.address,
        "storage_uri": "s3://test/hosts",
        "s3_endpoint_url": store.url,
        "num_workers": "1-3",
    }
    return settings.model_copy(update=changes)


def test_a_store_that_one_host_does_not_see_is_refused_at_once(
    cluster: Cluster, private: Path, train, small_params, settings
):
    changes = {
        "ray_address": cluster.address,
        "storage_uri": str(private / "store"),
        "num_workers": "1-3",
    }
    with pytest.raises(TrainingError) as refusal:
        train(small_params(), settings.model_copy(update=changes), run_name="unshared")
    assert f"node {address(THIRD)} does not see the checkpoint store {private}" in str(
        refusal.value
    )
    assert "MIRNET_STORAGE_URI" in str(refusal.value)


def test_a_lost_host_a_cut_link_and_a_busy_store_cost_no_epoch(
    cluster: Cluster,
    hosts: Hosts,
    store: FaultProxy,
    train,
    small_params,
    settings: Settings,
    in_process: Settings,
    pairs_dir: Path,
    train_ids: tuple[str, ...],
    val_ids: tuple[str, ...],
    tmp_path: Path,
):
    params = small_params(
        "train.num_epochs=6",
        "train.steps_per_epoch=6",
        "train.batch_size=6",
        "train.checkpoint_every=2",
    )
    place = _elastic(settings, cluster, store)
    seen: list[EpochMetrics] = []

    def fate(metrics: EpochMetrics) -> None:
        seen.append(metrics)
        if metrics.epoch == 1:
            hosts.kill(THIRD)
        if metrics.epoch == 3:
            hosts.cut(SECOND)
            threading.Timer(8, hosts.mend, [SECOND]).start()
        if metrics.epoch == 4:
            store.rate = 1.0
            threading.Timer(5, setattr, (store, "rate", 0.0)).start()

    version = DataVersion(
        path=str(pairs_dir), digest="d1", num_files=16, size=1, status="clean", git_commit=None
    )
    result = stages.train(
        pairs_dir,
        RunConfig(params, place),
        version=version,
        validation=ValidationResult(
            version=version,
            num_pairs={"our485": 8},
            passed=True,
            splits={"train": train_ids, "val": val_ids, "eval": ()},
        ),
        model_dir=tmp_path / "model",
        run_name="hosts",
        progress=fate,
    )
    assert result.num_workers < 3
    assert [m.epoch for m in result.history] == list(range(6))
    assert len(seen) <= 8  # an epoch may be told twice for each fault
    assert store.counts["faults"] > 0

    whole = train(params, in_process, run_name="whole")
    for one, other in zip(whole.history, result.history, strict=True):
        assert other.train_loss == pytest.approx(one.train_loss, rel=1e-2)
        assert other.val_psnr == pytest.approx(one.val_psnr, abs=0.1)

    client = MlflowClient(place.mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "mirnet-train"]
    (run,) = client.search_runs([experiment.experiment_id])
    assert (run.info.run_id, run.info.status) == (result.run_id, "FINISHED")
    assert result.run_id is not None
    steps = {m.step for m in client.get_metric_history(result.run_id, "train/loss")}
    assert steps == set(range(6))
    names = {name.split("/")[1] for name in run.data.metrics if name.startswith("system/")}
    assert {address(host) for host in (HEAD, SECOND, THIRD)} <= names
    jobs = JobSubmissionClient(cluster.address).list_jobs()
    assert [job.submission_id for job in jobs if job.metadata["mirnet_run"] == "hosts"] == [
        "mirnet-hosts"
    ]


def test_a_host_that_comes_during_training_takes_part(
    cluster: Cluster, hosts: Hosts, store: FaultProxy, train, small_params, settings: Settings
):
    hosts.kill(THIRD)
    place = _elastic(settings, cluster, store)
    epochs: list[int] = []

    def come(metrics: EpochMetrics) -> None:
        epochs.append(metrics.epoch)
        if len(epochs) == 2:
            assert THIRD not in trained_on
            cluster.start(THIRD)

    trained_on: set[int] = set()

    def look(extra: TrainingEvent) -> None:
        if isinstance(extra, NodeUsage):
            trained_on.update(h for h in (HEAD, SECOND, THIRD) if address(h) == extra.node)
            if THIRD in trained_on:
                raise KeyboardInterrupt  # seen enough: as Ctrl-C, it ends the job

    # Ray looks for new nodes once a minute; the job is ended long before its last epoch
    endless = small_params("train.num_epochs=5000", "train.batch_size=6")
    with pytest.raises(KeyboardInterrupt):
        train(endless, place, run_name="joined", on_progress=come, on_event=look)
    assert trained_on == {HEAD, SECOND, THIRD}
    assert sorted(set(epochs)) == list(range(max(epochs) + 1))
    # with the host that came it went on, and did not begin again
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(epochs))
    client = JobSubmissionClient(cluster.address)
    deadline = time.monotonic() + 60
    while client.get_job_status("mirnet-joined") != JobStatus.STOPPED:
        assert time.monotonic() < deadline
        time.sleep(0.5)
