"""The demo: what it keeps, when it resumes, and how the command starts it.

The whole of it runs in ``make demo`` and, from a wheel, in CI.
"""

from __future__ import annotations

import os
import sys
import webbrowser
from pathlib import Path

import pytest

from flows.demo import main
from flows.demo_folder import DemoFolder
from flows.demo_report import DemoOutcome
from mirnet.errors import ExtraMissing, UsageError


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
    outcome(gain=1.0).save(folder.figures)
    assert main(["--home", str(folder.home)]) == 1, "a failed demo stays one"


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
