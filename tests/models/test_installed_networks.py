"""Networks of other packages, found by their entry points."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.errors import UsageError
from mirnet.models import build, list_architectures, load_model, registry, save_model
from mirnet.params import load_params
from tests.models.plain_package import install


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The registry as in a process that begins now."""
    monkeypatch.syspath_prepend(str(install(tmp_path / "site-packages")))
    registry._find.cache_clear()
    yield
    registry.unregister("plain")
    registry._find()  # without looking again
    for name in [name for name in sys.modules if name.partition(".")[0] == "plain_network"]:
        del sys.modules[name]


@pytest.mark.usefixtures("found")
def test_names_params_folders_and_commands_know_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        names = list_architectures()
    assert {"plain", "plain-s", "mirnet", "mirnet-xs"} <= set(names)
    assert "mirnet-q" not in names and "plain_network.network" not in sys.modules
    absent, taken = caplog.messages
    assert absent == (
        "plain_network.absent of plain-network is left out: "
        "ModuleNotFoundError: No module named 'plain_network.absent'"
    )
    assert taken.startswith("plain_network.taken of plain-network is left out: ValueError: there")

    params = load_params("demo", overrides=("model.name=plain", "model.width=12"))
    assert params.model.config.build().first.out_channels == 12
    with pytest.raises(UsageError, match=r"model\.width: .*greater than or equal to 4"):
        load_params("demo", overrides=("model.name=plain", "model.width=2"))

    save_model(build("plain-s"), tmp_path / "model")
    assert type(load_model(tmp_path / "model")).__name__ == "Plain"
    Image.fromarray(np.full((20, 30, 3), 40, np.uint8)).save(tmp_path / "dark.png")
    enhance = ["enhance", str(tmp_path / "dark.png"), str(tmp_path / "out.png")]
    settings = ["--set", "enhance.max_darkening=null", "--set", "enhance.max_tint=null"]
    done = CliRunner().invoke(app, [*enhance, "--model", str(tmp_path / "model"), *settings])
    assert done.exit_code == 0 and (tmp_path / "out.png").is_file(), done.output
