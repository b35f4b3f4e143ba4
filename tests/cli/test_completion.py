"""Version and shell completion, as the shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import mirnet
from mirnet.cli import app, completion, version
from mirnet.config import Settings
from mirnet.tracking import connect, track
from mirnet.tracking.names import model_references, run_names

COMPLETED = "import sys; from mirnet.cli import main; sys.argv[0] = 'mirnet'; main()"


def complete(words: str, **variables: str) -> list[str]:
    """What bash offers for the last of the words."""
    given = {"_MIRNET_COMPLETE": "complete_bash", "COMP_WORDS": words}
    given["COMP_CWORD"] = str(len(words.split(" ")) - 1)
    done = subprocess.run(
        [sys.executable, "-c", COMPLETED],
        env=os.environ | given | variables,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_shell_is_offered_commands_options_and_presets() -> None:
    assert complete("mirnet eva") == ["evaluate"]
    assert complete("mirnet registry ro") == ["rollback"]
    assert complete("mirnet enhance --pr") == ["--precision"]
    assert complete("mirnet train --params pap") == ["paper", "paper-v2"]


def test_names_of_a_local_store(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(store)
    client.create_registered_model("mirnet")
    for _ in range(3):
        client.create_model_version("mirnet", "file:///nowhere")
    client.set_registered_model_alias("mirnet", "champion", "1")
    for name in ("seed 1", "seed 2", "a\x1b[31mred"):
        with track(store, purpose="train", name=name):
            pass
    expected = ["models:/mirnet@champion", *(f"models:/mirnet/{n}" for n in (3, 2, 1))]
    assert model_references(store) == expected
    assert len(run_names(store)) == 3
    monkeypatch.setenv("MIRNET_WORKSPACE", str(store.workspace))
    assert completion.models("models:/mirnet@") == ["models:/mirnet@champion"]
    assert completion.models("ba") == ["base"] and completion.versions("ba") == []
    assert set(completion.runs("")) == {"seed 1", "seed 2"}, "no control characters"
    offered = complete("mirnet enhance --model mod", MIRNET_WORKSPACE=str(store.workspace))
    assert offered == expected


def test_without_a_store_there_is_nothing_to_offer(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model_references(settings) == run_names(settings) == []
    assert not settings.workspace.exists(), "a look creates nothing"
    server = settings.model_copy(update={"tracking_uri": "http://127.0.0.1:9"})
    assert run_names(server) == []
    settings.workspace.mkdir()
    (settings.workspace / "mlflow.db").write_bytes(b"no database" * 100)
    assert run_names(settings) == []
    monkeypatch.setenv("MIRNET_STORAGE_URI", "s3://key:secret@bucket")
    assert completion.runs("") == completion.versions("") == []
    assert completion.models("") == ["base"]


def test_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(version, "_ROOT", tmp_path)
    monkeypatch.setattr(version, "_of_installation", lambda: None)
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"mirnet {mirnet.__version__}\n")
    git = ("git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@example.org")
    (tmp_path / "pyproject.toml").write_text("")
    subprocess.run([*git, "init", "-q"], check=True)
    assert version.describe() == f"mirnet {mirnet.__version__}", "no commit yet"
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    asked = [*git, "rev-parse", "HEAD"]
    head = subprocess.run(asked, check=True, capture_output=True, text=True).stdout
    assert version.describe() == f"mirnet {mirnet.__version__}, commit {head[:12]}"
    (tmp_path / "pyproject.toml").write_text("changed")
    assert version.describe().endswith(f"{head[:12]}-modified")
