"""Deployments and automations without a server: files against the flows."""

from __future__ import annotations

import inspect
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import pytest
import yaml
from prefect.blocks.notifications import CustomWebhookNotificationBlock

from flows import automations, events
from flows.serve import load_deployments, load_flow
from mirnet.config import engine_defaults
from mirnet.errors import UsageError

ROOT = Path(__file__).parents[2]
FILES = [ROOT / "prefect.yaml", ROOT / "infra/kubernetes/prefect.yaml"]


def entries(path: Path) -> list[dict[str, Any]]:
    loaded: list[dict[str, Any]] = yaml.safe_load(path.read_text("utf-8"))["deployments"]
    return loaded


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.parent.name)
def test_each_deployment_names_a_flow_and_its_parameters(path: Path) -> None:
    flows = []
    for entry in entries(path):
        flow = load_flow(entry["entrypoint"])
        known = inspect.signature(flow.fn).parameters
        assert set(entry["parameters"]) <= set(known)
        required = {n for n, p in known.items() if p.default is inspect.Parameter.empty}
        assert required <= set(entry["parameters"])
        assert entry["concurrency_limit"]["collision_strategy"] == "CANCEL_NEW"
        assert all(schedule["timezone"] for schedule in entry["schedules"])
        flows.append(flow.name)
    assert flows == ["retrain", "enhance", "monitor"]


def test_laptop_and_kubernetes_follow_the_same_schedule() -> None:
    first, second = ([e["schedules"] for e in entries(path)] for path in FILES)
    assert first == second


def test_serve_has_what_the_file_says() -> None:
    served = load_deployments(ROOT / "prefect.yaml")
    for deployment, entry in zip(served, entries(ROOT / "prefect.yaml"), strict=True):
        assert deployment.parameters == entry["parameters"]
        assert deployment.concurrency_limit == 1
        assert deployment.name == "laptop"
        assert any(tag.startswith("commit:") and "{" not in tag for tag in deployment.tags)
        schedule = deployment.schedules[0].schedule
        assert schedule.timezone == entry["schedules"][0]["timezone"]
    assert served[0].schedules[0].schedule.cron == "0 3 * * 0"


def test_serve_elsewhere_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="run in the project's folder"):
        load_deployments(tmp_path / "prefect.yaml")


def test_parameters_are_explained_in_the_prefect_page() -> None:
    for entry in entries(ROOT / "prefect.yaml"):
        properties = load_flow(entry["entrypoint"]).parameters.properties
        assert all(p.get("description") for p in properties.values()), entry["entrypoint"]


def test_automations_cover_silence_drift_data_promotion_and_notices() -> None:
    retrain, enhance, alerts = uuid4(), uuid4(), uuid4()
    made = {
        a.name: a for a in automations.automations(retrain=retrain, enhance=enhance, alerts=alerts)
    }
    assert len(made) == 6
    started = {
        next(iter(a.trigger.expect)): a.actions[0].deployment_id
        for a in made.values()
        if a.actions[0].type == "run-deployment"
    }
    assert started == {
        events.DRIFTED: retrain,
        events.DATA_CHANGED: retrain,
        events.PROMOTED: enhance,
    }
    told = made["mirnet: tell about the gate and the machine"].trigger.expect
    assert told == {events.REFUSED, events.WAITING, events.HARMFUL, events.UNHEALTHY}
    silent = made["mirnet: crash runs that went silent"]
    assert silent.trigger.posture.value == "Proactive"
    ends = ("Completed", "Cancelled", "Failed", "Crashed", "TimedOut")
    assert {f"prefect.flow-run.{end}" for end in ends} <= silent.trigger.expect
    assert silent.actions[0].state.value == "CRASHED"


def test_a_living_run_is_never_silent_for_that_long() -> None:
    beat = int(engine_defaults()["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"])
    assert 3 * beat <= automations.SILENCE_S


def test_without_deployments_or_webhook_only_silence_is_watched() -> None:
    made = automations.automations(retrain=None, enhance=None, alerts=None)
    assert [a.name for a in made] == ["mirnet: crash runs that went silent"]


@pytest.mark.parametrize("content", ["", "ftp://example.org/x"])
def test_a_webhook_file_without_an_address_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "webhook"
    path.write_text(content)
    with pytest.raises(UsageError, match="http address"):
        automations._read_webhook(path)


class _Receiver(BaseHTTPRequestHandler):
    received: ClassVar[list[bytes]] = []

    def do_POST(self) -> None:
        self.received.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_a_notice_reaches_a_webhook() -> None:
    server = HTTPServer(("127.0.0.1", 0), _Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        block = automations.notifier(f"http://127.0.0.1:{server.server_port}/hook")
        assert isinstance(block, CustomWebhookNotificationBlock)
        block.notify("gate refused", subject="mirnet")
    finally:
        server.shutdown()
        server.server_close()
    assert b"gate refused" in _Receiver.received[0]
