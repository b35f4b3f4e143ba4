"""The model in the package: when it is used, what names it, and that it is the released one."""

from __future__ import annotations

import json
import shutil
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from mirnet import base_model, open_enhancer, stages
from mirnet.base_model import BASE, FILES, FOLDER, NAME, NOTE, VERSION
from mirnet.batch.ledger import FOLDER as RECORDS
from mirnet.batch.manifest import format_of, load_rows
from mirnet.config import Settings
from mirnet.data.samples import LICENSED, PHOTOGRAPHS, photograph_path
from mirnet.errors import ServiceError, UsageError, WeightsError
from mirnet.params import Params
from mirnet.results import OpenedModel
from mirnet.signing.files import digest_of, file_digests
from mirnet.stages import RunConfig, models as stage_models
from mirnet.stages.enhancing import load_anywhere
from tests.batch.samples import picture
from tests.tracking.conftest import store

__all__ = ["store"]
WEIGHTS = FILES["weights.safetensors"]
SAID = f"{NAME} {VERSION} ({NOTE}; weights {WEIGHTS[:12]})"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs ``mirnet`` in an empty folder."""
    from mirnet.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_COMPILE", "false")

    def run(*words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["mirnet", *words])
        try:
            main()
        except SystemExit as left:
            return int(left.code or 0)
        return 0

    return run


def config(settings: Settings) -> RunConfig:
    return RunConfig(Params(), settings)


def test_the_files_are_the_released_ones_and_small() -> None:
    assert file_digests(FOLDER) == FILES
    weights = FOLDER / "weights.safetensors"
    assert weights.stat().st_size <= 1 << 20
    with safe_open(weights, framework="np") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F16"}  # noqa: SIM118


def test_the_card_names_every_photograph_with_digest_and_licence() -> None:
    card = base_model.CARD.read_text(encoding="utf-8")
    assert card.startswith(f"# {NAME} {VERSION}\n**{NOTE.capitalize()}.**")
    assert base_model.DATA_DIGEST in card
    for photo in LICENSED:
        for fact in (
            photo.resource,
            photo.author,
            photo.licence,
            digest_of(photograph_path(photo)),
        ):
            assert fact in card
    (left_out,) = set(PHOTOGRAPHS) - set(LICENSED)
    assert (left_out.name, left_out.name in card) == ("motorcycle", False)
    for title in ("## Scores", "## Limits", "## Licence"):
        assert title in card


def test_one_image_right_after_the_installation(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photo.png").write_bytes(picture(side=48))
    assert command("enhance", "photo.png", "bright.png", "--set", "enhance.max_tint=null") == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("photo.png -> bright.png, ") and line.endswith(SAID)
    assert not Path(".mirnet/mlflow.db").exists(), "nothing was tracked, so no registry is made"
    assert command("lineage", "bright.png", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["model note"] == NOTE
    assert (facts["model"], facts["model version"], facts["weights"]) == (NAME, VERSION, WEIGHTS)
    assert "gate" not in facts


def test_a_folder_says_it_in_output_manifest_summary_and_contact_sheet(
    command: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos").mkdir()
    for number in range(2):
        Path(f"photos/{number}.png").write_bytes(picture(number))
    assert command("enhance", "photos", "bright") == 0
    assert f"model: {SAID}" in capsys.readouterr().out
    (manifest,) = Path("bright", RECORDS).rglob("manifest*.parquet")
    rows = list(load_rows(manifest.read_bytes(), format_of(manifest.name)))
    assert [(r.model_name, r.model_version, r.model_note, r.weights_digest) for r in rows] == [
        (NAME, VERSION, NOTE, WEIGHTS)
    ] * 2
    (summary,) = Path("bright", RECORDS).rglob("summary.json")
    assert json.loads(summary.read_text("utf-8"))["model"]["note"] == NOTE
    (page,) = Path("bright", RECORDS).rglob("*.html")
    assert NOTE in page.read_text("utf-8")


def test_python_gets_it_too_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    dark = np.random.default_rng(0).integers(0, 40, (24, 20, 3), dtype=np.uint8)
    found = open_enhancer(compile=False)(dark)
    assert NOTE in caplog.text
    assert np.array_equal(open_enhancer(BASE, compile=False)(dark), found)
    assert found.mean() > 1.5 * dark.mean()


def test_an_unreachable_registry_is_an_error(
    command: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.socket() as held:  # bound, not listening: refused
        held.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{held.getsockname()[1]}"
        monkeypatch.setenv("MIRNET_TRACKING_URI", address)
        Path("photo.png").write_bytes(picture())
        assert command("enhance", "photo.png", "bright.png") == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"MLflow at {address} cannot be reached" in line
        assert not Path("bright.png").exists()
        with pytest.raises(ServiceError):
            open_enhancer()


def test_a_night_never_takes_it_unless_it_is_named(store: Settings) -> None:
    run = config(store)
    with pytest.raises(UsageError, match="name the model in the package: base"):
        stages.pin(None, run)
    assert stages.pin(BASE, run) == BASE


def test_buckets_never_get_it_unless_it_is_named(
    command: Callable[..., int], s3: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("photos").mkdir()
    Path("photos/a.png").write_bytes(picture())
    assert command("enhance", "photos", f"{s3}/bright") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("mirnet: no champion in ") and line.endswith("--model base")
    assert command("enhance", "photos", f"{s3}/bright", "--model", BASE) == 0
    assert SAID in capsys.readouterr().out
    assert command("lineage", f"{s3}/bright/a.png") == 0
    assert NOTE in capsys.readouterr().out


def test_a_changed_file_is_refused(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    monkeypatch.setattr(stage_models, "FOLDER", copy)
    with pytest.raises(WeightsError, match="not what was released: install mirnet-pipeline again"):
        stage_models.open_model(BASE, config(settings))


def test_another_machine_uses_its_own_package(settings: Settings) -> None:
    """Where the package is installed differs between the nodes of a cluster."""
    opened = stage_models.open_model(BASE, config(settings))
    elsewhere: OpenedModel = replace(opened, folder=Path("/not/here"))
    assert load_anywhere(elsewhere, config(settings)).architecture.family == "mirnet"
