"""What version 0.1 left on a machine is read and gone on with: ``stored/README.md``."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from mirnet import open_enhancer, stages
from mirnet.cli import app
from mirnet.config import load_settings
from mirnet.errors import UntrustedModel
from mirnet.results import EpochMetrics, EvaluationResult, ValidationResult
from mirnet.stack import control
from mirnet.stack.plan import StackPaths, load_plan, make_plan
from mirnet.stack.services import client_environment, services
from mirnet.tracking import registry
from mirnet.tracking.queries import list_runs
from mirnet.training import Listener, TrainRequest, train_model
from tests.stack.stack_client import PROJECT, Stack

STORED = Path(__file__).parent / "stored"
MADE_IN = "/srv/mirnet-0.1"
STOPPED = "night-2"


def unpack(name: str, folder: Path) -> Path:
    with tarfile.open(STORED / f"{name}-0.1.tar.xz") as stored:
        stored.extractall(folder, filter="data")
    return folder


def move(database: Path, old: str, new: str) -> None:
    """MLflow keeps where its artifacts are, as whole paths."""
    with closing(sqlite3.connect(database)) as connection, connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            for column in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
                if "CHAR" in column[2] or "TEXT" in column[2]:
                    where = f'"{table}" SET "{column[1]}" = replace("{column[1]}", ?, ?)'
                    connection.execute(
                        f'UPDATE {where} WHERE instr("{column[1]}", ?)', (old, new, old)
                    )


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, as if it had always been here."""
    folder = unpack("site", tmp_path / "site")
    move(folder / ".mirnet" / "mlflow.db", f"{MADE_IN}/site", str(folder))
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    return folder


def figures(metrics: EpochMetrics) -> list[float]:
    """What does not depend on the time."""
    found = (metrics.lr, metrics.train_loss, metrics.train_psnr or 0, metrics.grad_norm or 0)
    return [metrics.epoch, metrics.step, *found, metrics.val_psnr or 0, metrics.val_ssim or 0]


def check_history(history: Sequence[EpochMetrics]) -> None:
    """That of the same run when nobody stopped it."""
    expected = [EpochMetrics(**values) for values in json.loads(Path("expected.json").read_text())]
    for now, then in zip(history, expected, strict=True):
        # another processor may round otherwise
        assert figures(now) == pytest.approx(figures(then), rel=3e-4, abs=1e-5)


@pytest.mark.usefixtures("site")
def test_a_killed_training_goes_on() -> None:
    run, seen = stages.load_run_config(), list[EpochMetrics]()
    validation = ValidationResult.load(run.report("validate"))
    request = TrainRequest(
        root=Path("data"),
        train_ids=validation.splits["train"],
        val_ids=validation.splits["val"],
        params=run.params,
        settings=run.settings,
        digest=stages.check_version(Path("data")).digest,
        run_name=STOPPED,
        model_dir=Path("model"),
        init_from=Path("start"),
    )
    trained = train_model(request, Listener(on_progress=seen.append))
    assert [metrics.epoch for metrics in seen] == [1, 2], "the first was there"
    check_history(trained.history)


@pytest.mark.slow
@pytest.mark.usefixtures("site")
def test_its_run_in_mlflow_goes_on_and_the_model_takes_over() -> None:
    run, data = stages.load_run_config(), Path("data")
    (before,) = [r for r in list_runs(run.settings, purpose="train") if r.name == STOPPED]
    trained = stages.train(
        data,
        run,
        version=stages.check_version(data),
        model_dir=Path("model"),
        run_name=STOPPED,
    )
    check_history(trained.history)
    assert trained.run_id == before.run_id
    (after,) = [r for r in list_runs(run.settings, purpose="train") if r.name == STOPPED]
    assert (before.status, after.status) == ("RUNNING", "FINISHED")

    invoke("registry", "sign")
    evaluation = stages.evaluate(data, run, model="model")
    promotion = stages.promote(run, trained=trained, evaluation=evaluation)
    assert (promotion.version, promotion.previous_version) == ("2", "1"), promotion.reasons
    invoke("registry", "rollback", "--why", "test")
    names = {v.version: v.aliases for v in registry.list_versions("mirnet", run.settings)}
    assert names == {"1": ("champion",), "2": ("previous",)}
    assert "promote" in invoke("registry", "history")


def test_its_champion_is_loaded_verified_evaluated_and_enhances(site: Path) -> None:
    settings = load_settings()
    with pytest.raises(UntrustedModel, match="mirnet registry sign"):
        registry.resolve("models:/mirnet@champion", settings)
    invoke("registry", "sign")
    version = registry.get_version("models:/mirnet@champion", settings)
    registry.verify(version, settings)
    assert registry.resolve("models:/mirnet@champion", settings).ref.run_id == version.run_id

    then = EvaluationResult.model_validate_json((site / "reports/evaluate.json").read_text())
    now = stages.evaluate(Path("data"), stages.load_run_config(), model="models:/mirnet/1")
    assert now.methods["mirnet"].psnr == pytest.approx(then.methods["mirnet"].psnr, abs=0.01)

    enhancer = open_enhancer("models:/mirnet@champion", compile=False)
    dark = np.full((30, 50, 3), 40, np.uint8)
    assert enhancer(dark).shape == dark.shape
    invoke("enhance", "data/eval15/low", "out", "--set", "enhance.contact_images=0")
    assert len(list((site / "out").glob("*.png"))) == 2


def test_its_reports_and_model_folder_are_read(site: Path) -> None:
    run = stages.load_run_config()
    invoke("registry", "sign")
    promotion = stages.promote(run)  # what was trained and evaluated before the upgrade
    assert (promotion.version, promotion.alias) == ("1", "champion")
    by_folder = open_enhancer("model", compile=False)
    by_name = open_enhancer("models:/mirnet/1", compile=False)
    dark = np.random.default_rng(0).integers(0, 60, (33, 47, 3), dtype=np.uint8)
    assert (by_folder(dark) == by_name(dark)).all()


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def home(tmp_path: Path) -> StackPaths:
    return StackPaths(unpack("stack", tmp_path / "stack"))


def test_a_stopped_stack_keeps_its_ports_secrets_and_accounts(
    home: StackPaths, tmp_path: Path
) -> None:
    shown = CliRunner().invoke(app, ["stack", "status", "--json", "--home", str(home.root)])
    assert shown.exit_code == 1, "not healthy"
    states = json.loads(shown.output)["services"]
    assert {state["phase"] for state in states.values()} == {"stopped"}
    assert set(states) == {
        *("s3", "mlflow", "prefect-server", "ray-head", "ray-node-1", "ray-node-2"),
        "prefect-worker",
    }
    plan, secrets = load_plan(home)
    again = make_plan(home, project=tmp_path, database="postgres")
    assert (again.stack_id, again.database) == (plan.stack_id, "sqlite")
    assert again.ports.keys() == plan.ports.keys()
    assert load_plan(home)[1] == secrets
    started = {service.name: service for service in services(home, again, secrets)}
    assert started.keys() == states.keys()
    environment = client_environment(home, again, secrets)
    assert environment["MLFLOW_TRACKING_PASSWORD"] == secrets.mlflow_pipeline
    database = started["prefect-server"].env["PREFECT_API_DATABASE_CONNECTION_URL"]
    assert Path(database.partition(":///")[2]).is_file()
    control.down(home)
    assert home.plan.is_file() and not again.run_dir.exists()
    control.down(home, purge=True)
    assert not home.root.exists()


def test_deployments_of_then_start_the_flows_of_now(home: StackPaths) -> None:
    """Prefect keeps which function a deployment calls, with what; scheduled runs are among them."""
    from flows.serve import load_flow

    with closing(sqlite3.connect(home.folder("prefect") / "prefect.db")) as database:
        deployments = database.execute("SELECT entrypoint, parameters FROM deployment").fetchall()
        runs = database.execute("SELECT parameters FROM flow_run").fetchall()
    names = []
    for entrypoint, parameters in deployments:
        flow = load_flow(entrypoint)
        flow.validate_parameters(json.loads(parameters))
        names.append(flow.name)
    assert sorted(names) == ["enhance", "monitor", "retrain"]
    assert len(runs) > 3


@pytest.mark.stack
def test_a_stack_of_then_comes_up_and_its_deployments_run(home: StackPaths) -> None:
    database = home.folder("prefect") / "prefect.db"
    move(database, f"{MADE_IN}/project", str(PROJECT))
    with closing(sqlite3.connect(database)) as connection, connection:
        known = dict(connection.execute("SELECT entrypoint, id FROM deployment").fetchall())
        # those of the past would all begin now
        connection.execute("DELETE FROM flow_run WHERE state_type = 'SCHEDULED'")
    plan, secrets = load_plan(home)
    try:
        control.up(home, project=PROJECT, timeout_s=600, progress=lambda _: None)
        stack = Stack(home, *load_plan(home), own=True)
        assert stack.secrets == secrets and stack.plan.stack_id == plan.stack_id
        there = {d["entrypoint"]: d["id"] for d in stack.prefect("deployments/filter", {})}
        assert there == known
        run_id = stack.trigger("monitor", {"data": str(home.root / "data")})
        assert stack.wait_ended(run_id, timeout_s=300)["type"] == "COMPLETED"
        assert stack.mlflow("experiments/search", {"max_results": 1})["experiments"]
    finally:
        control.down(home, purge=True)
