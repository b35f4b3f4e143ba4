"""What the runs of test_whole_stack.py left: pages in a browser, no secrets, a clean end."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from mirnet.config import environment, load_settings
from mirnet.errors import UsageError
from mirnet.stack import control
from mirnet.stack.backup import back_up, restore
from mirnet.stack.plan import BUCKETS, StackPaths, load_plan
from mirnet.stack.probes import basic, request
from mirnet.stack.processes import MARKER
from mirnet.storage.places import open_store
from mirnet.tracking import registry
from tests.browser import open_browser
from tests.stack.conftest import open_to_postgres
from tests.stack.stack_client import PROJECT, Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]


def test_people_find_runs_artifacts_and_help_in_the_pages(stack: Stack, tmp_path: Path) -> None:
    tour = runpy.run_path(str(PROJECT / "docs" / "stack_pages.py"))
    with open_browser(tmp_path / "profile", width=1400) as browser:
        tour["sign_in"](browser, stack.home)
        shown = [tour["show"](browser, page) for page in tour["pages"](stack.home)]
    assert len(shown) >= 8


def test_the_server_sends_nothing_home(stack: Stack) -> None:
    status, content = request(
        f"{stack.plan.url('prefect')}/api/admin/settings",
        headers=basic(stack.secrets.prefect_auth),
    )
    assert status == 200
    assert json.loads(content)["server"]["analytics_enabled"] is False
    log = control.log_path(stack.home, "prefect-server").read_text(encoding="utf-8")
    assert "telemetry" not in log


def test_what_the_library_logs_stands_with_its_run(stack: Stack) -> None:
    runs = stack.prefect("flow_runs/filter", {"flows": {"name": {"any_": ["retrain"]}}})
    ran = {run["id"] for run in runs if run["state_type"] == "COMPLETED"}
    wanted = {"logs": {"flow_run_id": {"any_": sorted(ran)}}}
    logs = stack.prefect("logs/filter", wanted)
    trained = [line for line in logs if line["name"] == "mirnet.stages.training"]
    assert trained
    assert all(line["task_run_id"] for line in trained)


def test_the_run_says_what_it_cost(stack: Stack) -> None:
    found = stack.mlflow("registered-models/alias?name=mirnet&alias=champion")
    run = stack.mlflow(f"runs/get?run_id={found['model_version']['run_id']}")["run"]
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert metrics["system/cost/cpu_hours"] > 0
    assert metrics["system/cost/energy_kwh"] > 0


def _texts(stack: Stack) -> Iterator[tuple[str, bytes]]:
    """Everything that a person could read: command lines, files, records, objects."""
    for process in psutil.process_iter():
        try:
            yield f"process {process.name()}", " ".join(process.cmdline()).encode()
        except psutil.Error:
            continue
    folders = [stack.home.logs, *map(stack.home.folder, ("reports", "workspace"))]
    for path in (p for folder in folders for p in folder.rglob("*") if p.is_file()):
        yield str(path), path.read_bytes()
    for kind in ("flow_runs", "task_runs", "deployments", "artifacts", "logs", "automations"):
        yield f"Prefect {kind}", json.dumps(stack.prefect(f"{kind}/filter", {})).encode()
    experiments = stack.mlflow("experiments/search", {"max_results": 100})["experiments"]
    ids = [experiment["experiment_id"] for experiment in experiments]
    runs = stack.mlflow("runs/search", {"experiment_ids": ids, "max_results": 100})
    assert runs["runs"]
    yield "MLflow runs", json.dumps(runs).encode()
    yield "MLflow models", json.dumps(stack.mlflow("registered-models/search")).encode()
    admin = {
        "AWS_ACCESS_KEY_ID": stack.secrets.s3_admin_key,
        "AWS_SECRET_ACCESS_KEY": stack.secrets.s3_admin_secret,
    }
    with environment(**stack.env | admin):
        for bucket in BUCKETS:
            store = open_store(f"s3://{bucket}", load_settings())
            for info in store.list():
                yield store.address(info.key), store.get(info.key).data


def test_no_secret_is_anywhere_but_in_its_file(stack: Stack) -> None:
    """The stack's own secrets are the planted ones: every process of it was given some."""
    values = [v.encode() for name, v in stack.secrets if not name.endswith("_key")]
    assert stack.secrets.prefect.encode() in stack.home.secrets.read_bytes()
    seen = {"process": 0, "Prefect": 0, "MLflow": 0, "s3": 0}
    for place, content in _texts(stack):
        assert not any(value in content for value in values), place
        for kind in seen:
            seen[kind] += place.startswith(kind)
    assert all(seen.values()), seen
    assert stack.home.secrets.stat().st_mode & 0o777 == 0o600


def test_all_comes_back_from_a_backup(stack: Stack, tmp_path: Path) -> None:
    """Into an empty folder, as after the loss of the machine; the stack itself is down then."""
    before = _kept(stack)
    archive = tmp_path / "stack.tar"
    back_up(stack.home, archive, report=print)
    assert archive.stat().st_mode & 0o777 == 0o600
    with pytest.raises(UsageError, match="mirnet stack down"):
        restore(stack.home, archive, report=print)
    control.down(stack.home)
    with pytest.raises(UsageError, match="--replace"):
        restore(stack.home, archive, report=print)

    home = StackPaths(tmp_path / "new")
    open_to_postgres(home)
    restore(home, archive, report=print)
    control.up(home, project=PROJECT, timeout_s=600, progress=lambda _: None)
    try:
        again = Stack(home, *load_plan(home), own=True)
        assert _kept(again) == before
        with environment(**again.env):
            opened = registry.resolve("models:/mirnet@champion", load_settings())
        assert opened.ref.version == before["champion"]["version"]
    finally:
        control.down(home)


def _kept(stack: Stack) -> dict[str, Any]:
    """Champion, history of the registry, runs, schedules and automations."""
    model = stack.mlflow("registered-models/get?name=mirnet")["registered_model"]
    alias = stack.mlflow("registered-models/alias?name=mirnet&alias=champion")["model_version"]
    experiments = stack.mlflow("experiments/search", {"max_results": 100})["experiments"]
    runs = stack.mlflow(
        "runs/search",
        {"experiment_ids": [e["experiment_id"] for e in experiments], "max_results": 1000},
    )["runs"]
    return {
        "model": {key: model[key] for key in ("name", "tags", "aliases")},
        "champion": {"version": alias["version"], "tags": alias["tags"], "run": alias["run_id"]},
        "runs": sorted((run["info"]["run_id"], run["info"]["status"]) for run in runs),
        "deployments": sorted(
            (d["id"], d["paused"], json.dumps([s["schedule"] for s in d["schedules"]]))
            for d in stack.prefect("deployments/filter", {})
        ),
        "automations": sorted(a["name"] for a in stack.prefect("automations/filter", {})),
    }


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
