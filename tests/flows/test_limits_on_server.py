"""Time limits and the shared limit of compute on a Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowFilterName
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

from flows import monitor as monitor_flow, turns
from flows.deploying import prepare
from flows.monitor import monitor
from flows.retrain import retrain
from flows.time_limits import OutOfTime, _Clock
from flows.turns import COMPUTE, turn
from mirnet.errors import ServiceError
from mirnet.results import EpochMetrics
from tests.flows.conftest import TINY, Site
from tests.made_results import LENIENT_GATE

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def one_place(client: SyncPrefectClient) -> Iterator[None]:
    prepare()
    yield
    client.delete_global_concurrency_limit_by_name(COMPUTE)


def wait_for_ever() -> None:
    while True:
        time.sleep(0.01)


def test_a_flow_out_of_time_is_timed_out_and_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))
    monkeypatch.setenv("MIRNET_CHECK_LIMIT_S", "0.5")
    monkeypatch.setattr(monitor_flow, "examine", lambda _: wait_for_ever())
    state = monitor(data=str(tmp_path / "none"), return_state=True)
    # the event of this name starts the notification
    assert state.name == "TimedOut", state
    said = [
        record.getMessage() for record in caplog.records if "took longer" in record.getMessage()
    ]
    assert said == ["examine took longer than 0.5 s; the limit is MIRNET_CHECK_LIMIT_S"]
    assert not any(record.exc_info for record in caplog.records)


def test_deploying_makes_the_limit_once_and_pauses_earlier_names(client: SyncPrefectClient) -> None:
    ours, foreign = (client.create_flow_from_name(name) for name in ("retrain", "payroll"))
    old = client.create_deployment(ours, name="process", entrypoint="flows/retrain.py:retrain")
    other = client.create_deployment(foreign, name="process", entrypoint="payroll.py:payroll")
    assert prepare() == {"limit": f"{COMPUTE} 1", "paused": "retrain/process"}
    assert client.read_deployment(old).paused
    assert not client.read_deployment(other).paused
    client.upsert_global_concurrency_limit_by_name(COMPUTE, 2)
    assert prepare(computing=1) == {"limit": f"{COMPUTE} 2", "paused": ""}
    client.delete_global_concurrency_limit_by_name(COMPUTE)


def test_without_the_limit_nobody_waits_or_is_warned(caplog: pytest.LogCaptureFixture) -> None:
    with turn("retrain"), turn("enhance"):
        pass
    assert not caplog.records


@contextmanager
def computing() -> Iterator[threading.Event]:
    """Another run has the place until the event, or the end of the block."""
    started, end = threading.Event(), threading.Event()

    def compute() -> None:
        with turn("retrain"):
            started.set()
            end.wait(60)

    other = threading.Thread(target=compute)
    other.start()
    assert started.wait(60)
    try:
        yield end
    finally:
        end.set()
        other.join()


def test_the_second_waits_says_so_and_gets_the_place(
    one_place: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="mirnet.flows")
    with computing() as end:
        threading.Timer(0.5, end.set).start()
        with turn("enhance"):
            assert end.is_set()
    (said,) = [r.getMessage() for r in caplog.records if r.name == "mirnet.flows"]
    assert said.startswith(f"enhance waits: 1 of 1 places of {COMPUTE} are taken")


def test_a_wait_has_an_end(one_place: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_TURN_LIMIT_S", "0.5")
    refused = pytest.raises(OutOfTime, match=r"enhance waited 0\.5 s .* MIRNET_TURN_LIMIT_S")
    with computing(), refused, turn("enhance"):
        pass


def test_a_limit_of_zero_is_said(one_place: None, client: SyncPrefectClient) -> None:
    client.upsert_global_concurrency_limit_by_name(COMPUTE, 0)
    with pytest.raises(ServiceError, match="enhance: no place under the limit"), turn("enhance"):
        pass


def test_work_that_is_done_counts_though_the_place_cannot_be_given_back(
    one_place: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def unreachable(*_: object, **__: object) -> Iterator[None]:
        yield
        raise httpx.ConnectError("no server")

    monkeypatch.setattr(turns, "concurrency", unreachable)
    with turn("retrain"):
        pass
    assert "was not given back: no server" in caplog.text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_training_at_its_limit_is_timed_out_and_goes_on_with_resume(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    site.use(monkeypatch)
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    monkeypatch.setenv("MIRNET_TRAIN_LIMIT_S", "60")
    overrides = [*TINY, *LENIENT_GATE, "train.num_epochs=4"]
    describe = EpochMetrics.describe
    out_of_time = threading.Event()

    def after_the_limit(epoch: EpochMetrics, num_epochs: int) -> str:
        clocks = [each for each in threading.enumerate() if isinstance(each, _Clock)]
        while not out_of_time.is_set() and not any(clock.expired for clock in clocks):
            time.sleep(0.1)
        out_of_time.set()
        return describe(epoch, num_epochs)

    monkeypatch.setattr(EpochMetrics, "describe", after_the_limit)
    state = retrain(str(site.data), "demo", overrides, return_state=True)
    assert state.name == "TimedOut", state
    (said,) = [r.getMessage() for r in caplog.records if "took longer" in r.getMessage()]
    assert said == "train took longer than 60 s; the limit is MIRNET_TRAIN_LIMIT_S"
    assert not any(record.exc_info for record in caplog.records)

    monkeypatch.delenv("MIRNET_TRAIN_LIMIT_S")
    (name,) = [path.name for path in (site.workspace / "training").iterdir()]
    resumed = retrain(str(site.data), "demo", overrides, resume=name)
    assert len(resumed.train.history) == 4
    assert "going on at step 3" in caplog.text  # the second epoch


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_retraining_and_night_take_turns(
    site: Site, folder: Path, one_place: None, client: SyncPrefectClient, tmp_path: Path
) -> None:
    places = {"MIRNET_WORKSPACE": str(tmp_path), "MIRNET_REPORTS_DIR": str(tmp_path / "reports")}
    engines = {
        "PREFECT_API_URL": str(get_current_settings().api.url),
        "MIRNET_RAY_ADDRESS": "in-process",
    }
    overrides = [word for each in (*TINY, *LENIENT_GATE) for word in ("--set", each)]
    wanted = {
        "retrain": ["--data", str(site.data), "--params", "demo", *overrides],
        "enhance": [str(site.data / "eval15" / "low"), str(tmp_path / "bright"), "--model"],
    }
    wanted["enhance"] += [str(folder), "--params", "demo"]
    logs = {name: tmp_path / f"{name}.log" for name in wanted}
    with turn("this test"):
        runs = {
            name: subprocess.Popen(
                [sys.executable, "-m", f"flows.{name}", *words],
                cwd=ROOT,
                env=os.environ | places | engines,
                stdout=logs[name].open("w"),
                stderr=subprocess.STDOUT,
            )
            for name, words in wanted.items()
        }
        for name, run in runs.items():
            while f"{name} waits: 1 of 1 places" not in logs[name].read_text():
                assert run.poll() is None, logs[name].read_text()
                time.sleep(0.5)
    codes = {name: run.wait(timeout=600) for name, run in runs.items()}
    assert codes == {"retrain": 0, "enhance": 0}, "".join(p.read_text() for p in logs.values())
    (night,) = tasks_of(client, "enhance", "enhance")
    training = tasks_of(client, "retrain", "validate", "train", "evaluate")[-3:]
    assert night[1] <= training[0][0] or training[-1][1] <= night[0], (night, training)


def tasks_of(client: SyncPrefectClient, flow: str, *names: str) -> list[tuple[float, float]]:
    """Start and end of tasks, seconds, in the order of their start."""
    named = FlowFilter(name=FlowFilterName(any_=[flow]))
    tasks = [
        t for t in client.read_task_runs(flow_filter=named) if t.name.rpartition("-")[0] in names
    ]
    return sorted(
        (task.start_time.timestamp(), task.end_time.timestamp())
        for task in tasks
        if task.start_time and task.end_time
    )
