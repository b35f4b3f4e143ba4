"""`dvc repro` drives the same stages as the flow; `dvc exp run`, `metrics diff`, `plots show`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
import yaml

from mirnet.cli import app
from mirnet.data.versioning import add
from mirnet.params import Params, load_params
from mirnet.results import EpochMetrics
from tests.small_models import SMALLEST

ROOT = Path(__file__).parents[2]
STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]


def test_stages_are_commands_sections_and_reports() -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    sections = {field.alias or name for name, field in Params.model_fields.items()}
    for name, stage in STAGES.items():
        assert stage["cmd"].split()[:2] == ["mirnet", name]
        assert name in commands
        assert name in sections
        assert set(stage["params"]) <= sections
        assert stage["metrics"] == [f"reports/{name}.json"]


def test_params_of_the_stages_are_in_params_yaml() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in STAGES.values():
        assert set(stage["params"]) <= set(values), "DVC tracks only what the file has"


def test_plots_are_of_the_history_of_a_training() -> None:
    fields = set(EpochMetrics.model_fields)
    for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]:
        (axes,) = plot.values()
        (y,) = axes["y"].values()
        assert axes["x"] == {"reports/train.json": "epoch"} and axes["y"].keys() == axes["x"].keys()
        assert fields >= ({y} if isinstance(y, str) else set(y))


def dvc(folder: Path, *words: str) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "MIRNET_RAY_ADDRESS": "in-process"}
    command = [sys.executable, "-m", "dvc", *words]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def commit(folder: Path) -> None:
    for words in (["add", "-A"], ["commit", "-qm", "state"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)


@pytest.fixture(scope="module")
def tiny() -> Params:
    return load_params(
        "demo",
        overrides=(
            *SMALLEST,
            "train.num_epochs=1",
            "train.steps_per_epoch=2",
            "train.batch_size=2",
            "train.patch_size=32",
        ),
    )


@pytest.fixture(scope="module")
def pipeline(
    sample_dir: Path, tiny: Params, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A git repository in which the pipeline has run; every change is committed."""
    folder = tmp_path_factory.mktemp("pipeline")
    for name in ("dvc.yaml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    for words in (["init", "-q"], ["config", "user.name", "a"], ["config", "user.email", "a@b"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    dvc(folder, "init", "-q")
    shutil.copytree(sample_dir, folder / "data")
    add(folder / "data")
    values = tiny.model_dump(by_alias=True, mode="json")
    (folder / "params.yaml").write_text(yaml.safe_dump(values))
    commit(folder)
    dvc(folder, "repro")
    commit(folder)
    yield folder


def test_repro_runs_validate_train_evaluate(pipeline: Path, tiny: Params) -> None:
    scores = json.loads((pipeline / "reports" / "evaluate.json").read_text())
    assert set(scores["methods"]) == {"mirnet", *tiny.evaluate.baselines}
    assert "up to date" in dvc(pipeline, "repro")


@pytest.mark.slow
def test_an_experiment_its_metrics_and_its_curves(pipeline: Path) -> None:
    dvc(pipeline, "exp", "run", "--name", "faster", "--set-param", "train.lr=0.01")
    found = json.loads(dvc(pipeline, "metrics", "diff", "--json"))
    psnr = found["reports/evaluate.json"]["methods.mirnet.psnr"]
    assert psnr["new"] - psnr["old"] == pytest.approx(psnr["diff"]) and psnr["diff"] != 0
    assert "best_val_psnr" in found["reports/train.json"]
    assert "faster" in dvc(pipeline, "exp", "list", "--name-only")

    page = dvc(pipeline, "plots", "show").strip().removeprefix("file://")
    html = Path(page).read_text(encoding="utf-8")
    history = json.loads((pipeline / "reports" / "train.json").read_text())["history"]
    for title, field in (("Loss", "train_loss"), ("PSNR, dB", "val_psnr")):
        assert title in html and str(history[0][field]) in html, field


def test_a_stage_out_of_order_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mirnet.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mirnet", "promote", "--params", "cpu"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "run `mirnet" in capsys.readouterr().err
