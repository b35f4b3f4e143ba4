"""``mirnet ui``: which store, which page, which port, and its end."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
import webbrowser
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest

from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.tracking import pages, track

Command = Callable[..., int]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Command:
    """Runs ``mirnet`` in an empty folder."""
    from mirnet.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["mirnet", *words])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return run


@pytest.fixture
def visited(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Addresses that the browser was sent to."""
    seen: list[str] = []

    def visit(address: str) -> bool:
        seen.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", visit)
    return seen


def test_nothing_to_show_is_one_line(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ((), ("--demo",), ("elsewhere",)):
        assert command("ui", *words) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert "nothing was tracked here yet" in line


def test_a_server_that_is_configured_is_opened_only(
    command: Command, visited: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRNET_TRACKING_URI", "http://mlflow.example:5000/")
    monkeypatch.setattr(pages, "page_path", lambda _: "/#/experiments/1/runs")
    assert command("ui") == 0
    assert visited == ["http://mlflow.example:5000/#/experiments/1/runs"]


def test_a_taken_port_is_one_line_or_another_port() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is taken"):
            pages.choose_port(port)
    with socket.socket() as held:
        try:
            held.bind((pages.HOST, pages.PORT))
            held.listen()
        except OSError:
            pass  # taken already, by something else
        assert pages.choose_port(None) != pages.PORT


def test_ctrl_c_ends_it(
    command: Command,
    visited: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Server:
        def poll(self) -> None:
            raise KeyboardInterrupt

    monkeypatch.setenv("MIRNET_TRACKING_URI", "sqlite:///mine.db")
    monkeypatch.setattr(pages, "page_path", lambda _: "/#/experiments/1/runs")
    monkeypatch.setattr(pages, "serving", lambda *_, **__: nullcontext(Server()))
    assert command("ui") == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"store: sqlite:///{Path.cwd() / 'mine.db'}" and told[-1] == "stopped"
    assert len(visited) == 1


def test_the_store_of_the_demo_is_served_on_its_evaluations_until_it_is_told_to_end(
    empty_store: Path, tmp_path: Path
) -> None:
    # as `mirnet runs list` leaves it
    (tmp_path / ".mirnet").mkdir()
    shutil.copy(empty_store, tmp_path / ".mirnet" / "mlflow.db")
    workspace = tmp_path / "mirnet-demo" / "workspace"
    workspace.mkdir(parents=True)
    shutil.copy(empty_store, workspace / "mlflow.db")
    with track(Settings(workspace=workspace), purpose="evaluate", name="mirnet", key="1"):
        pass
    started = subprocess.Popen(
        [sys.executable, "-m", "mirnet.cli", "ui", "--no-open"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    store, address, hint = (started.stdout.readline().strip() for _ in range(3))
    assert store == f"store: sqlite:///{workspace / 'mlflow.db'}"
    view = "viewStateShareKey=mirnet-scores"
    assert address.endswith(f"/runs?{view}&workflowType=machine_learning")
    assert "#/experiments/" in address and hint == "Ctrl-C stops the server"
    with urllib.request.urlopen(address.partition("#")[0], timeout=60) as page:
        assert page.status == 200
    started.send_signal(signal.SIGTERM)
    assert started.communicate(timeout=60)[0].strip() == "stopped"
    assert started.returncode == 0
    with socket.socket() as probe:
        port = int(address.split(":")[2].partition("/")[0])
        assert probe.connect_ex(("127.0.0.1", port)) != 0, "the server is gone"
