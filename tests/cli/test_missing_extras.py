"""A command that needs an extra says which in one line; the module is hidden from it here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mirnet import extras
from mirnet.cli import main
from mirnet.errors import ExtraMissing
from mirnet.models import build, save_model

Command = Callable[..., str]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Runs ``mirnet`` with a module hidden; what it says on standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))

    def run(*words: str, without: str) -> str:
        monkeypatch.setitem(sys.modules, without, None)
        monkeypatch.setattr(sys, "argv", ["mirnet", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 2
        return capsys.readouterr().err

    return run


@pytest.mark.parametrize("format", ["onnx", "int8"])
@pytest.mark.parametrize("module", ["onnx", "onnxruntime", "onnxscript"])
def test_export(format: str, module: str, command: Command) -> None:
    save_model(build("mirnet-xs", n_feat=8), Path("model"))
    assert command("export", f"net.{format}", "--format", format, without=module) == (
        f"mirnet: {module}: not installed; pip install 'mirnet-pipeline[export]'\n"
    )
    assert not Path(f"net.{format}").exists()


def test_what_needs_no_extra_goes_on_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    model, target = tmp_path / "model", tmp_path / "net.pt2"
    save_model(build("mirnet-xs", n_feat=8), model)
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setattr(sys, "argv", ["mirnet", "export", str(target), "--model", str(model)])
    with pytest.raises(SystemExit) as left:
        main()
    assert not left.value.code
    assert target.is_file() and "net.pt2" in capsys.readouterr().out


@pytest.mark.parametrize("module", ["flask_wtf", "psycopg2"])
def test_stack(module: str, command: Command) -> None:
    assert command("stack", "up", "--home", "home", without=module) == (
        f"mirnet: {module}: not installed; pip install 'mirnet-pipeline[stack]'\n"
    )
    assert not Path("home/plan.json").exists()


def test_a_tracking_store_on_postgresql(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_TRACKING_URI", "postgresql://mirnet:secret@127.0.0.1:9/mlflow")
    assert command("runs", "list", without="psycopg2") == (
        "mirnet: psycopg2: not installed; pip install 'mirnet-pipeline[stack]'\n"
    )


def test_sample_data(command: Command) -> None:
    assert command("data", "sample", "pairs", without="sklearn") == (
        "mirnet: sklearn: not installed; pip install 'mirnet-pipeline[demo]'\n"
    )
    assert not Path("pairs").exists()


def test_a_program_is_taken_from_the_environment_then_from_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(elsewhere))
    with pytest.raises(ExtraMissing, match=r"^the program weed: .*'mirnet-pipeline\[demo\]'$"):
        extras.program("demo", "weed")
    for folder in (elsewhere, tmp_path):
        (folder / "weed").touch(mode=0o755)
        assert extras.program("demo", "weed") == str(folder / "weed")
