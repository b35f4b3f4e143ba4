"""The stack as a team uses it: deployments, a retraining through kills, a night, and nothing left.

``make stack-test`` runs it on the stack that ``make stack`` started (STACK_HOME); without one it
starts its own. The tests build on each other, in this order.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from mirnet.batch.storage import open_store
from mirnet.config import environment, load_settings
from mirnet.data.versioning import add, init_workspace
from mirnet.errors import StorageError
from mirnet.stack import control
from mirnet.stack.plan import Home, Plan, Secrets, load_plan
from mirnet.stack.probes import basic, request
from mirnet.stack.processes import MARKER, kill_session
from mirnet.stack.services import client_environment

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

PROJECT = Path(__file__).parents[2]
UP_S = 600
TINY = [
    "model.n_feat=8",
    "train.num_epochs=5",
    "train.steps_per_epoch=4",
    "train.batch_size=2",
    "train.patch_size=32",
    "evaluate.bootstrap_samples=100",
    # the gate itself is tested elsewhere; a network that saw 20 steps would never pass it
    "promote.min_gain_db=-100",
    "promote.max_loss_db=100",
    "promote.max_colour_cast=null",
    "promote.min_luma_ratio=null",
    "promote.min_well_lit_psnr_db=null",
    "promote.max_added_clipping=null",
]


@dataclass(frozen=True)
class Stack:
    """A running stack, as a client sees it."""

    home: Home
    plan: Plan
    secrets: Secrets
    own: bool

    @property
    def env(self) -> dict[str, str]:
        return client_environment(self.home, self.plan, self.secrets)

    def prefect(self, path: str, body: object) -> Any:
        status, content = request(
            f"{self.plan.url('prefect')}/api/{path}",
            headers=basic(self.secrets.prefect_auth),
            body=body,
            timeout_s=60,
        )
        assert status in (200, 201), (path, status, content[:300])
        return json.loads(content)

    def mlflow(self, path: str) -> Any:
        status, content = request(
            f"{self.plan.url('mlflow')}/api/2.0/mlflow/{path}",
            headers=basic(f"pipeline:{self.secrets.mlflow_pipeline}"),
            timeout_s=60,
        )
        assert status == 200, (path, status, content[:300])
        return json.loads(content)

    def pid(self, service: str) -> int:
        pid = control.status(self.home).services[service].pid
        assert pid is not None
        return pid

    def trigger(self, flow: str, parameters: dict[str, object]) -> str:
        found = self.prefect("deployments/filter", {"flows": {"name": {"any_": [flow]}}})
        assert [d["name"] for d in found] == ["process"]
        run = self.prefect(
            f"deployments/{found[0]['id']}/create_flow_run", {"parameters": parameters}
        )
        return str(run["id"])

    def state(self, run_id: str) -> dict[str, Any]:
        found = self.prefect("flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return dict(found[0]["state"])

    def wait_ended(self, run_id: str, *, timeout_s: float) -> dict[str, Any]:
        ends = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_for(lambda: self.state(run_id)["type"] in ends, timeout_s=timeout_s)
        return self.state(run_id)

    def wait_restarted(self, service: str, before: int, *, timeout_s: float = 240) -> None:
        def again() -> bool:
            now = control.status(self.home).services[service]
            return now.phase == "healthy" and now.pid not in (None, before)

        wait_for(again, timeout_s=timeout_s)


def wait_for(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(2)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    given = os.environ.get("STACK_HOME")
    home = Home(Path(given).resolve() if given else tmp_path_factory.mktemp("stack") / "home")
    for folder in () if given else home.root.parents:
        # the account of PostgreSQL must reach its files below pytest's private folders
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o711)
    control.up(home, project=PROJECT, timeout_s=UP_S, progress=lambda _: None)
    try:
        yield Stack(home, *load_plan(home), own=not given)
    finally:
        if not given:
            control.down(home)


@pytest.fixture(scope="module")
def data(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    init_workspace(root)
    subprocess.run(["cp", "-r", str(sample_dir), str(root / "data")], check=True)
    add(root / "data")
    return root / "data"


def test_every_server_asks_for_credentials(stack: Stack) -> None:
    prefect = f"{stack.plan.url('prefect')}/api/flows/count"
    search = f"{stack.plan.url('mlflow')}/api/2.0/mlflow/experiments/search"
    body = {"max_results": 1}
    admin = basic(f"admin:{stack.secrets.mlflow_admin}")
    assert request(prefect, body={})[0] == 401
    assert request(prefect, body={}, headers=basic("admin:wrong"))[0] == 401
    assert request(search, body=body)[0] == 401
    assert request(search, body=body, headers=admin)[0] == 200
    # DNS rebinding: the right credentials under a foreign name
    assert request(search, body=body, headers=admin | {"Host": "evil.example"})[0] == 403
    assert request(f"{stack.plan.url('ray-dashboard')}/api/version")[0] == 401
    assert request(f"{stack.plan.url('s3')}/training")[0] == 403
    # behind S3: the file server that holds the objects
    assert request(f"http://127.0.0.1:{stack.plan.ports['filer']}/buckets/training/")[0] == 401


def test_the_pipeline_reaches_its_own_buckets_only(stack: Stack) -> None:
    with environment(**stack.env):
        settings = load_settings()
        open_store("s3://photos", settings).check()
        with pytest.raises(StorageError, match="access denied"):
            open_store("s3://mlflow", settings).check()
        with pytest.raises(StorageError, match="access denied"):
            open_store("s3://mlflow", settings).put("planted", b"x", content_type="text/plain")


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = {name: s.pid for name, s in control.status(stack.home).services.items()}
    state = control.up(stack.home, project=PROJECT, timeout_s=60, progress=lambda _: None)
    assert {name: s.pid for name, s in state.services.items()} == before


def test_deployments_are_registered_from_the_file(stack: Stack, tmp_path: Path) -> None:
    deployed = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        cwd=PROJECT,
        env=os.environ | stack.env | {"PREFECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert deployed.returncode == 0, deployed.stdout[-2000:] + deployed.stderr[-2000:]
    found = {
        d["tags"][1]: (d["concurrency_options"]["collision_strategy"], len(d["schedules"]))
        for d in stack.prefect("deployments/filter", {})
    }
    assert found == {
        "training": ("CANCEL_NEW", 1),
        "nightly": ("CANCEL_NEW", 1),
        "watching": ("CANCEL_NEW", 1),
    }
    schema = stack.prefect("deployments/filter", {"flows": {"name": {"any_": ["retrain"]}}})
    described = schema[0]["parameter_openapi_schema"]["properties"]["data"]
    assert "LoL layout" in described["description"]
    # the scheduler has to put runs into the database; with SQLAlchemy 2.1 it failed without a word
    planned = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    wait_for(lambda: stack.prefect("flow_runs/count", planned) > 2, timeout_s=150)


def test_automations_are_made_once(stack: Stack, tmp_path: Path) -> None:
    for _ in range(2):
        subprocess.run(
            [sys.executable, "-m", "flows.automations"],
            cwd=PROJECT,
            env=os.environ | stack.env | {"PREFECT_HOME": str(tmp_path)},
            check=True,
            capture_output=True,
            timeout=200,
        )
    names = sorted(a["name"] for a in stack.prefect("automations/filter", {}))
    assert names == [
        "mirnet: crash runs that went silent",
        "mirnet: enhance after promotion",
        "mirnet: retrain after drift",
        "mirnet: retrain on new data",
    ]


def test_retrain_survives_the_loss_of_each_server(stack: Stack, data: Path) -> None:
    run_id = stack.trigger("retrain", {"data": str(data), "params": "demo", "overrides": TINY})
    wait_for(lambda: _task_running(stack, run_id, "train"), timeout_s=240)
    for service in ("prefect-worker", "ray-node-1", "mlflow", "prefect-server"):
        before = stack.pid(service)
        _lose(service, before)
        stack.wait_restarted(service, before)
    state = stack.wait_ended(run_id, timeout_s=600)
    assert state["type"] == "COMPLETED", state["message"]
    found = stack.mlflow("registered-models/alias?name=mirnet&alias=champion")
    tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
    assert tags["mirnet.data_digest"].endswith(".dir")


def _task_running(stack: Stack, run_id: str, name: str) -> bool:
    state = stack.state(run_id)
    assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), state["message"]
    tasks = stack.prefect("task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    ended = [t for t in tasks if t["state_type"] in ("FAILED", "CRASHED")]
    assert not ended, ended[0]["state"]["message"]
    return any(t["name"].startswith(name) and t["state_type"] == "RUNNING" for t in tasks)


def _lose(service: str, leader: int) -> None:
    """A host goes with all its processes; a server dies alone."""
    if service.startswith("ray-node"):
        kill_session(leader)
    else:
        os.kill(leader, signal.SIGKILL)


def test_the_night_enhances_what_arrived(stack: Stack, data: Path) -> None:
    lows = sorted((data / "eval15" / "low").iterdir())[:4]
    with environment(**stack.env):
        source = open_store("s3://photos/incoming", load_settings())
        for path in lows:
            source.put(path.name, path.read_bytes(), content_type="image/png")
        broken = lows[0].read_bytes()
        source.put("truncated.png", broken[: len(broken) // 2], content_type="image/png")
    run_id = stack.trigger(
        "enhance",
        {"source": "s3://photos/incoming", "target": "s3://enhanced/incoming", "params": "demo"},
    )
    state = stack.wait_ended(run_id, timeout_s=400)
    assert state["type"] == "COMPLETED", state["message"]
    with environment(**stack.env):
        target = open_store("s3://enhanced/incoming", load_settings())
        keys = [info.key for info in target.list()]
    assert {path.name for path in lows} <= set(keys)
    assert "truncated.png" not in keys
    assert any("quarantine" in key and "truncated" in key for key in keys)


def test_no_secret_is_in_a_process_list_a_log_or_a_record(stack: Stack) -> None:
    values = [value for name, value in stack.secrets if not name.endswith("_key")]
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        assert not any(value in word for value in values for word in words), process.name()
    places = [*stack.home.logs.iterdir(), *stack.home.folder("reports").rglob("*")]
    for path in (p for p in places if p.is_file()):
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not any(value in text for value in values), path
    recorded = json.dumps(
        [
            stack.prefect("flow_runs/filter", {}),
            stack.prefect("deployments/filter", {}),
            stack.prefect("artifacts/filter", {}),
            stack.prefect("logs/filter", {"limit": 200}),
            stack.mlflow("registered-models/search"),
        ]
    )
    assert not any(value in recorded for value in values)
    assert stack.home.secrets.stat().st_mode & 0o777 == 0o600


def test_down_leaves_nothing_running_or_listening(stack: Stack) -> None:
    if not stack.own:
        pytest.skip("a stack of somebody else: make stack-down")
    control.down(stack.home)
    for process in psutil.process_iter():
        try:
            assert process.environ().get(MARKER) != stack.plan.stack_id, process.cmdline()
        except psutil.Error:
            continue
    listening = {c.laddr.port for c in psutil.net_connections("tcp") if c.status == "LISTEN"}
    assert not listening & set(stack.plan.ports.values())
    assert not stack.plan.run_dir.exists()
