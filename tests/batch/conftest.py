"""Places on a real S3 server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mirnet.cli import main
from mirnet.config import Settings
from mirnet.models import build, save_model
from mirnet.storage.s3server import S3Server

Command = Callable[..., int]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "workspace", lease_s=5)


@pytest.fixture(params=["local", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Source and target, both local or both on S3."""
    if request.param == "local":
        (tmp_path / "source").mkdir()
        return str(tmp_path / "source"), str(tmp_path / "target")
    base = request.getfixturevalue("s3")
    return f"{base}/source", f"{base}/target"


@pytest.fixture
def variables(places: tuple[str, str], request: pytest.FixtureRequest) -> dict[str, str]:
    """What a process needs in its environment to reach the places."""
    if not places[0].startswith("s3://"):
        return {}
    server: S3Server = request.getfixturevalue("s3_server")
    return server.environment


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_model(build("mirnet-xs", n_feat=8), tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def enhance(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the command with these words; its exit code."""
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))

    def run(*words: str) -> int:
        monkeypatch.setattr(
            sys, "argv", ["mirnet", "enhance", *words, "--model", str(folder), "--params", "demo"]
        )
        with pytest.raises(SystemExit) as left:
            main()
        return int(left.value.code or 0)

    return run
