"""`dvc repro` drives the same stages as the flow."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer
import yaml

from mirnet.cli import app
from mirnet.data.versioning import add, init_workspace
from mirnet.params import Params, load_params

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
        assert f"reports/{name}.json" in stage["metrics"][0]


def test_params_of_the_stages_are_in_params_yaml() -> None:
    values = yaml.safe_load((ROOT / "params.yaml").read_text())
    for stage in STAGES.values():
        assert set(stage["params"]) <= set(values), "DVC tracks only what the file has"


def test_repro_runs_validate_train_evaluate(sample_dir: Path, tmp_path: Path) -> None:
    init_workspace(tmp_path)
    shutil.copytree(sample_dir, tmp_path / "data")
    add(tmp_path / "data")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    tiny = load_params(
        "demo",
        overrides=(
            "model.n_feat=8",
            "train.num_epochs=1",
            "train.steps_per_epoch=2",
            "train.batch_size=2",
            "train.patch_size=32",
        ),
    )
    (tmp_path / "params.yaml").write_text(
        yaml.safe_dump(tiny.model_dump(by_alias=True, mode="json"))
    )
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    repro = [sys.executable, "-m", "dvc", "repro"]
    environment = os.environ | {"PATH": path, "MIRNET_RAY_ADDRESS": "in-process"}
    done = subprocess.run(repro, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    scores = json.loads((tmp_path / "reports" / "evaluate.json").read_text())
    assert set(scores["methods"]) == {"mirnet", *tiny.evaluate.baselines}

    again = subprocess.run(repro, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "up to date" in again.stdout


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
