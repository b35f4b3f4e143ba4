"""The stack as a team uses it: deployments, a retraining through kills, a night.

``make stack-test`` runs it on the stack that ``make stack`` started (STACK_HOME); without one it
starts its own. ``make compose-test`` runs it on containers. The tests build on each other, in
this order; test_whole_stack_after.py goes on.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.config import environment, load_settings
from mirnet.errors import StorageError
from mirnet.stack.probes import basic, request
from mirnet.storage.places import open_store
from tests.made_results import LENIENT_GATE
from tests.stack.stack_client import Stack, wait_for

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1200)]

TINY = [
    "model.n_feat=8",
    "train.num_epochs=5",
    "train.steps_per_epoch=4",
    "train.batch_size=2",
    "train.patch_size=32",
    "evaluate.bootstrap_samples=100",
    *LENIENT_GATE,
]


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


def test_the_pipeline_reaches_its_own_buckets_only(stack: Stack) -> None:
    with environment(**stack.env):
        settings = load_settings()
        open_store("s3://photos", settings).check()
        with pytest.raises(StorageError, match="access denied"):
            open_store("s3://mlflow", settings).check()
        with pytest.raises(StorageError, match="access denied"):
            open_store("s3://mlflow", settings).put("planted", b"x", content_type="text/plain")


def test_up_again_changes_nothing(stack: Stack) -> None:
    before = stack.identities()
    stack.up_again()
    assert stack.identities() == before


def test_deployments_are_registered_from_the_file(stack: Stack) -> None:
    deployed = stack.run("prefect", "--no-prompt", "deploy", "--all")
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
    status, content = request(
        f"{stack.plan.url('prefect')}/api/deployments/{schema[0]['id']}/create_flow_run",
        headers=basic(stack.secrets.prefect_auth),
        body={"parameters": {"allow_modified": "perhaps"}},
    )
    assert status in (409, 422), content
    assert b"perhaps" in content
    # the scheduler has to put runs into the database; with SQLAlchemy 2.1 it failed without a word
    planned = {"flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
    wait_for(lambda: stack.prefect("flow_runs/count", planned) > 2, timeout_s=150)


def test_automations_are_made_once(stack: Stack) -> None:
    for _ in range(2):
        done = stack.run("flows.automations")
        assert done.returncode == 0, done.stderr
    names = sorted(a["name"] for a in stack.prefect("automations/filter", {}))
    assert names == [
        "mirnet: crash runs that went silent",
        "mirnet: enhance after promotion",
        "mirnet: retrain after drift",
        "mirnet: retrain on new data",
    ]


def test_retrain_survives_the_loss_of_each_server(stack: Stack, data: Path) -> None:
    run_id = stack.trigger(
        "retrain", {"data": stack.data_seen_by_flows(data), "params": "demo", "overrides": TINY}
    )
    wait_for(lambda: _task_running(stack, run_id, "train"), timeout_s=240)
    for service in stack.losable:
        stack.lose(service)
    state = stack.wait_ended(run_id, timeout_s=600)
    assert state["type"] == "COMPLETED", state["message"]
    found = stack.mlflow("registered-models/alias?name=mirnet&alias=champion")
    tags = {tag["key"]: tag["value"] for tag in found["model_version"]["tags"]}
    assert tags["mirnet.data_digest"].endswith(".dir")
    assert tags.get("mirnet.git_commit") == stack.code


def _task_running(stack: Stack, run_id: str, name: str) -> bool:
    state = stack.state(run_id)
    assert state["type"] in ("SCHEDULED", "PENDING", "RUNNING"), state["message"]
    tasks = stack.prefect("task_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
    ended = [t for t in tasks if t["state_type"] in ("FAILED", "CRASHED")]
    assert not ended, ended[0]["state"]["message"]
    return any(t["name"].startswith(name) and t["state_type"] == "RUNNING" for t in tasks)


def test_the_promotion_starts_a_night_by_itself(stack: Stack) -> None:
    def started() -> list[str]:
        runs = stack.prefect("flow_runs/filter", {"flows": {"name": {"any_": ["enhance"]}}})
        made = [run for run in runs if (run["created_by"] or {}).get("type") == "AUTOMATION"]
        return [run["id"] for run in made]

    wait_for(lambda: bool(started()), timeout_s=120)
    for run_id in started():
        state = stack.wait_ended(run_id, timeout_s=400)
        assert state["type"] == "COMPLETED", state["message"]


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
