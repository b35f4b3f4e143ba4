"""Automations on a real Prefect server: our events start runs, silence crashes, notices arrive."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from mirnet.config import child_environment
from mirnet.stack.probes import basic, request
from mirnet.storage.s3server import free_ports

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
LOGIN = "admin:a-password-for-this-test"
SILENCE_S = 40

DEPLOY = """
from pathlib import Path
from flows.serve import load_deployments
for deployment in load_deployments(Path("prefect.yaml")):
    deployment.apply()
"""
ANNOUNCE = """
from flows import events
from mirnet.results import EnhanceResult, PromotionResult
night = EnhanceResult(
    run_id="n", source="s3://photos", target="s3://enhanced", model="mirnet", planned=60,
    enhanced=60, drift={"noise": 0.5}, drifted=("noise",), seconds=1,
)
assert events.announce_drift(night)
assert events.announce_drift(night)
assert not events.announce_drift(night.model_copy(update={"drifted": ()}))
events.announce_data_change(path="data", digest="2.dir", champion_digest="1.dir")
better = PromotionResult(
    promoted=True, reasons=("better",), name="mirnet", version="7", alias="champion"
)
assert events.announce_promotion(better) == events.PROMOTED
worse = better.model_copy(update={"promoted": False, "reasons": ("too dark",), "version": "8"})
assert events.announce_promotion(worse) == events.REFUSED
"""
FAIL = """
import flows
from prefect import flow, tags
@flow(name="doomed")
def doomed():
    raise ValueError("no such night")
with tags("mirnet"):
    doomed(return_state=True)
"""
TOO_LONG = """
from flows.monitor import monitor
from prefect import tags
with tags("mirnet"):
    assert monitor("none", return_state=True).name == "TimedOut"
"""
SLEEP = """
import time
import flows
from prefect import flow
from prefect.runtime import flow_run
@flow(name="sleeper")
def sleeper():
    print(flow_run.get_id(), flush=True)
    time.sleep(600)
sleeper()
"""


@dataclass
class Prefect:
    """A server of the test's own, and what its webhook received."""

    url: str
    env: dict[str, str]
    notices: list[dict[str, str]] = field(default_factory=list)

    def call(self, path: str, body: object) -> Any:
        status, content = request(f"{self.url}/{path}", headers=basic(LOGIN), body=body)
        assert status in (200, 201), (path, status, content[:300])
        return json.loads(content)

    def delete(self, path: str) -> None:
        status, content = request(f"{self.url}/{path}", headers=basic(LOGIN), method="DELETE")
        assert status == 204, content

    def python(self, *arguments: str, **variables: str) -> str:
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=self.env | variables,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
        return done.stdout

    def started(self, flow: str) -> list[dict[str, Any]]:
        """Runs that an automation made, not the schedule."""
        runs = self.call("flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})
        return [run for run in runs if (run.get("created_by") or {}).get("type") == "AUTOMATION"]

    def state(self, run_id: str) -> str:
        (found,) = self.call("flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return str(found["state"]["type"])

    def heard_of(self, run_id: str) -> bool:
        """A heartbeat of the run is among the events."""
        wanted = {
            "event": {"name": ["prefect.flow-run.heartbeat"]},
            "resource": {"id": [f"prefect.flow-run.{run_id}"]},
        }
        return bool(self.call("events/filter", {"filter": wanted})["events"])


def wait_for(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(1)


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    folder = tmp_path_factory.mktemp("prefect")
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}/api"
    home = {"PREFECT_HOME": str(folder), "NO_PROXY": "127.0.0.1"}
    client = child_environment(**home, PREFECT_API_URL=url, PREFECT_API_AUTH_STRING=LOGIN)
    found = Prefect(url, client)
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", f"--port={port}"],
            env=child_environment(**home, PREFECT_SERVER_API_AUTH_STRING=LOGIN),
            stdout=log,
            stderr=log,
        )
    try:
        wait_for(lambda: _answers(found), timeout_s=240)
        yield found
    finally:
        server.terminate()
        server.wait(timeout=60)
    text = (folder / "server.log").read_text(encoding="utf-8")
    assert "telemetry" not in text


def _answers(prefect: Prefect) -> bool:
    try:
        return bool(prefect.call("flows/count", {}) == 0)
    except OSError:
        return False


@pytest.fixture(scope="module")
def automated(prefect: Prefect, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prefect]:
    """Deployments of the project and its automations, with a webhook that listens."""

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            prefect.notices.append(json.loads(content))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    sink = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=sink.serve_forever, daemon=True).start()
    address = tmp_path_factory.mktemp("webhook") / "address"
    address.write_text(f"http://127.0.0.1:{sink.server_port}/hook\n")
    prefect.python("-c", DEPLOY)
    made = prefect.python(
        *("-m", "flows.automations", "--deployment", "laptop"),
        *("--webhook-file", str(address), "--silence", str(SILENCE_S)),
    )
    assert len(made.splitlines()) == 6
    yield prefect
    sink.shutdown()
    sink.server_close()


def test_nothing_is_sent_home(prefect: Prefect) -> None:
    status, content = request(f"{prefect.url}/admin/settings", headers=basic(LOGIN))
    assert status == 200
    assert json.loads(content)["server"]["analytics_enabled"] is False


def test_kubernetes_deployments_and_their_work_pool_are_accepted(prefect: Prefect) -> None:
    """As docs/clusters.md says; the server checks job variables against the template."""
    pool = ("work-pool", "create", "mirnet-kubernetes", "--type", "kubernetes")
    template = ("--base-job-template", "infra/kubernetes/work-pool.json")
    prefect.python("-m", "prefect", "--no-prompt", *pool, *template)
    file = ("--prefect-file", "infra/kubernetes/prefect.yaml")
    prefect.python("-m", "prefect", "--no-prompt", "deploy", "--all", *file)
    pooled = {"work_pools": {"name": {"any_": ["mirnet-kubernetes"]}}}
    found = prefect.call("deployments/filter", pooled)
    assert {d["name"] for d in found} == {"retrain", "enhance", "monitor"}
    assert sorted(d["job_variables"].get("gpus", 0) for d in found) == [0, 0, 1]
    for deployment in found:
        prefect.delete(f"deployments/{deployment['id']}")


def test_our_events_start_runs_and_notices(automated: Prefect) -> None:
    automated.python("-c", ANNOUNCE)
    wait_for(lambda: len(automated.started("retrain")) >= 2, timeout_s=120)
    wait_for(lambda: len(automated.started("enhance")) >= 1, timeout_s=120)
    wait_for(lambda: bool(automated.notices), timeout_s=120)
    time.sleep(5)
    # drift came twice and counts once in six hours; the data change is the other one
    assert len(automated.started("retrain")) == 2
    (after_promotion,) = automated.started("enhance")
    assert after_promotion["parameters"]["target"] == "s3://enhanced/incoming"
    (notice,) = automated.notices
    assert notice["subject"] == "mirnet.model.refused: mirnet version 8"
    assert "too dark" in notice["body"]


def test_a_run_that_fails_is_told(automated: Prefect) -> None:
    automated.python("-c", FAIL)
    wait_for(lambda: any("doomed" in n["subject"] for n in automated.notices), timeout_s=120)
    notice = next(n for n in automated.notices if "doomed" in n["subject"])
    assert notice["subject"] == "doomed Failed"
    assert "no such night" in notice["body"]


def test_a_run_out_of_time_is_told(automated: Prefect) -> None:
    automated.python("-c", TOO_LONG, MIRNET_CHECK_LIMIT_S="0.01")
    wait_for(lambda: any("TimedOut" in n["subject"] for n in automated.notices), timeout_s=120)
    notice = next(n for n in automated.notices if "TimedOut" in n["subject"])
    assert notice["subject"] == "monitor TimedOut"
    assert "examine took longer than 0.01 s" in notice["body"]


def test_a_run_whose_process_was_killed_becomes_crashed(automated: Prefect) -> None:
    sleeper = subprocess.Popen(
        [sys.executable, "-c", SLEEP],
        cwd=ROOT,
        env=automated.env | {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert sleeper.stdout is not None
        run_id = sleeper.stdout.readline().strip()
        wait_for(lambda: automated.heard_of(run_id), timeout_s=120)
        assert automated.state(run_id) == "RUNNING"
    finally:
        os.kill(sleeper.pid, signal.SIGKILL)
        sleeper.wait()
    wait_for(lambda: automated.state(run_id) == "CRASHED", timeout_s=4 * SILENCE_S)


def test_a_laptop_serves_the_deployments(automated: Prefect, tmp_path: Path) -> None:
    places = {"MIRNET_WORKSPACE": str(tmp_path), "MIRNET_REPORTS_DIR": str(tmp_path / "reports")}
    # what the automations started has no data here
    for flow in ("retrain", "enhance"):
        for run in automated.started(flow):
            state = {"state": {"type": "CANCELLED"}, "force": True}
            automated.call(f"flow_runs/{run['id']}/set_state", state)
    serving = subprocess.Popen(
        [sys.executable, "-m", "flows.serve"],
        cwd=ROOT,
        env=automated.env | places,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wanted = {"flows": {"name": {"any_": ["monitor"]}}}
        (deployment,) = automated.call("deployments/filter", wanted)
        path = f"deployments/{deployment['id']}/create_flow_run"
        run_id = automated.call(path, {"parameters": {"data": str(tmp_path)}})["id"]
        wait_for(lambda: automated.state(run_id) == "COMPLETED", timeout_s=180)
    finally:
        serving.send_signal(signal.SIGINT)
        serving.wait(timeout=60)
    assert "mirnet_check" in (tmp_path / "reports" / "mirnet.prom").read_text()
