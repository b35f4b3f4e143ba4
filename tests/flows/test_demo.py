"""The demo: what it keeps, when it resumes, and how the command starts it.

The whole of it runs in ``make demo`` and, from a wheel, in CI.
"""

from __future__ import annotations

import os
import shutil
import sys
import webbrowser
from pathlib import Path

import pytest

from flows.demo import main, steps_told
from flows.demo_folder import DemoFolder
from flows.demo_report import DemoOutcome
from flows.time_limits import limited
from mirnet.errors import ExtraMissing, UsageError
from mirnet.stack.plan import StackPaths, load_plan, make_plan
from mirnet.stack.services import client_environment
from mirnet.storage.s3server import S3Server


def outcome(*, gain: float = 5.0) -> DemoOutcome:
    counts = {"planned": 3, "enhanced": 2, "quarantined": 1, "failed": 0}
    return DemoOutcome(
        psnr={"input": 8.0, "autocontrast": 11.0, "mirnet": 11.0 + gain},
        ssim={"input": 0.2, "autocontrast": 0.3, "mirnet": 0.6},
        enhance=counts,
        data={"digest": "d"},
        num_images=3,
        model={"name": "mirnet", "version": "1", "alias": "champion"},
        seconds={"total": 1.0},
    )


def test_it_begins_resumes_is_done_and_starts_over(tmp_path: Path) -> None:
    folder = DemoFolder.below(tmp_path / "demo")
    with folder.opened(anew=False) as state:
        assert state == "begins"
    folder.data.mkdir(parents=True)
    with folder.opened(anew=False) as state:
        assert state == "resumes"
    folder.figures.write_text("{}")
    with folder.opened(anew=False) as state:
        assert state == "done"
    with folder.opened(anew=True) as state:
        assert state == "begins" and not folder.data.exists()


def test_it_removes_nothing_of_others_and_runs_once(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match="holds something that is no demo"),
        DemoFolder.below(tmp_path).opened(anew=True),
    ):
        pass
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    folder = DemoFolder.below(tmp_path / "demo")
    with (
        folder.opened(anew=False),
        pytest.raises(UsageError, match="a demo is running in it"),
        folder.opened(anew=False),
    ):
        pass


def test_a_second_one_of_the_checkout_leaves_a_running_one_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = DemoFolder.of_checkout()
    with folder.opened(anew=False):
        folder.data.mkdir(parents=True)
        assert main([]) == 2
        assert "a demo is running in it" in capsys.readouterr().err
        assert folder.data.is_dir()
    # of a release without marks
    (folder.home / ".mirnet-demo").unlink()
    with folder.opened(anew=True) as state:
        assert state == "begins" and not folder.data.exists()


def test_it_uses_no_server_that_is_configured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after ``eval "$(mirnet stack env)"``: every address and credential is replaced."""
    root = tmp_path / "stack"
    home = StackPaths(root)
    plan = make_plan(home, project=tmp_path, database="sqlite")
    configured = client_environment(home, *load_plan(home))
    shutil.rmtree(plan.run_dir)
    variables = DemoFolder.below(tmp_path / "demo").variables
    s3 = S3Server(tmp_path / "s3").environment
    secret = {*load_plan(home)[1].model_dump().values()}
    ours = {
        name
        for name, value in configured.items()
        if "://" in value or str(root) in value or value in secret
    }
    assert {"MIRNET_RAY_ADDRESS", "RAY_AUTH_TOKEN", "AWS_ENDPOINT_URL"} <= ours
    kept = {name for name in ours if name not in variables | s3}
    # read by nothing without the server, the workspace of the stack or its commands
    assert kept <= {"MIRNET_STACK_HOME", "MLFLOW_TRACKING_PASSWORD"}, kept
    assert variables["MIRNET_RAY_ADDRESS"] is variables["MIRNET_NUM_WORKERS"] is None
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    assert DemoFolder.below(tmp_path).variables["MIRNET_RAY_ADDRESS"] == "in-process"


def test_a_file_is_no_home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "dark.png").write_bytes(b"image")
    for home in ("dark.png", "dark.png/demo"):
        assert main(["--home", str(tmp_path / home)]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "dark.png" in line and "folder" in line


def test_a_complete_one_is_shown_again_and_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def visit(address: str) -> bool:
        seen.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", visit)
    folder = DemoFolder.below(tmp_path / "demo")
    with folder.opened(anew=False):
        folder.results.mkdir()
        folder.report.write_text("<html>")
        outcome().save(folder.figures)
    assert main(["--home", str(folder.home), "--open"]) == 0
    told = capsys.readouterr().out
    assert told.startswith(f"{folder.home}: complete already; --anew runs it again\n")
    assert str(folder.report) in told and f"mirnet ui {folder.home}" in told
    assert seen == [folder.report.resolve().as_uri()]
    assert main(["--home", str(folder.home), "--set", "train.num_epochs=2"]) == 2
    assert "--set needs --anew" in capsys.readouterr().err and folder.figures.is_file()
    outcome(gain=1.0).save(folder.figures)
    assert main(["--home", str(folder.home)]) == 1, "a failed demo stays one"


def test_stages_and_epochs_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    """A demo took minutes in silence."""
    from mirnet.training.launch import logger

    @limited("evaluate", "stage")
    def evaluate() -> None:
        logger.info("epoch 1/10: loss 0.1")

    with steps_told():
        evaluate()
    evaluate()
    assert capsys.readouterr().out.splitlines() == ["    evaluate", "    epoch 1/10: loss 0.1"]


def test_the_command_becomes_the_flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In an installed package, with a folder `flows` of somebody else in the working directory."""
    from mirnet.cli.demo import demo

    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda _, command: started.append(command))
    demo(home=tmp_path, show=True, set_=["train.num_epochs=1"])
    options = ["--home", str(tmp_path), "--open", "--set", "train.num_epochs=1"]
    assert started == [[sys.executable, "-P", "-m", "flows.demo", *options]]


def test_a_missing_extra_is_named_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    from mirnet.cli import demo as module

    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("started"))
    monkeypatch.setattr("mirnet.extras.find_spec", lambda _: None)
    with pytest.raises(ExtraMissing, match=r"mirnet-pipeline\[demo\]"):
        module.demo()
