"""What the on-call person sees of a night in Prefect and MLflow."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from mlflow import MlflowClient
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

from flows import enhance as nightly, events
from mirnet import stages
from mirnet.batch.drift import build_profile
from mirnet.batch.lease import Lease
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings, load_settings
from mirnet.errors import TooManyBad
from mirnet.images import Image
from mirnet.images.stats import measure
from mirnet.inference import Enhancer
from mirnet.results import EnhanceResult
from mirnet.stages.models import PROFILE
from mirnet.storage.places import open_store
from mirnet.tracking import aliases, registry, track
from tests.small_models import make_model

# the champion has learned nothing: each of its outputs is written
_LIMITS = (
    *("pass_luminance", "max_darkening", "max_dimmed_share", "max_order_loss"),
    *("max_tint", "max_added_clipping", "max_added_noise"),
)
TEN_SAY_DRIFT = ["enhance.drift_min_images=10", *(f"enhance.{name}=null" for name in _LIMITS)]


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def picture(seed: int, level: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, level, (32, 32, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def darken(_enhancer: Enhancer, images: Sequence[Image], _strength: float) -> list[Image]:
    """In place of a champion's work."""
    return [replace(image, pixels=image.pixels // 2) for image in images]


def twelve_pictures(folder: Path) -> Path:
    """Much brighter than what the champion was trained on."""
    folder.mkdir()
    for number in range(12):
        (folder / f"{number}.png").write_bytes(picture(number, 200))
    return folder


@pytest.fixture(scope="module")
def registered(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """A registry whose champion was trained on images much darker than tonight's."""
    root = tmp_path_factory.mktemp("night")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MIRNET_WORKSPACE", str(root / "workspace"))
        patch.setenv("MIRNET_REPORTS_DIR", str(root / "reports"))
        patch.setenv("MIRNET_COMPILE", "false")
        settings = load_settings()
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    folder = make_model(root / "model", seed=0)
    random = np.random.default_rng(0)
    lows = [random.integers(0, 20 + n, (32, 32, 3), dtype=np.uint8) for n in range(30)]
    profile = build_profile((measure(low), 32, 32) for low in lows)
    (folder / PROFILE).write_text(json.dumps(profile))
    with track(settings, purpose="train", name="train", key="train") as run:
        pass
    version = registry.register(folder, name="mirnet", run_id=run.run_id, settings=settings)
    aliases.promote(version, why="test", settings=settings)
    yield settings


@pytest.fixture
def settings(registered: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(registered.workspace))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(registered.reports_dir))
    monkeypatch.setenv("MIRNET_COMPILE", "false")
    return registered


def table(key: str) -> Any:
    found: Any = Artifact.get(key)
    assert found is not None, key
    return json.loads(found.data) if found.type == "table" else found.data


def test_a_night_can_be_seen_and_its_drift_is_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = twelve_pictures(tmp_path / "in"), tmp_path / "out"
    (source / "cut.png").write_bytes(picture(99, 200)[:500])
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: told.append(event))
    result = nightly.enhance(
        str(source),
        str(target),
        params="demo",
        overrides=TEN_SAY_DRIFT,
    )
    assert (result.enhanced, result.quarantined) == (12, 1)

    counts = {row["figure"]: row["value"] for row in table("enhance")}
    assert (counts["enhanced"], counts["quarantined"]) == (12, 1)
    assert "model_note" not in counts, "figures without a value are left out"
    worst = table("enhance-worst")
    assert (worst[0]["input"], worst[0]["fate"], worst[0]["reason"]) == (
        "cut.png",
        "quarantined",
        "truncated",
    )
    assert [row["fate"] for row in worst[1:]] == ["enhanced"] * (len(worst) - 1)
    assert str(table("enhance-contact")).count("data:image/jpeg;base64,") >= 12
    assert (target / "_mirnet/runs" / result.run_id / "contact.html").is_file()
    drift = {row["column"]: row for row in table("enhance-drift")}
    assert drift["luminance"]["drifted"]
    assert drift["luminance"]["distance"] == result.drift["luminance"] > 0.3
    assert drift["luminance"]["reason"].startswith("drifted: distance 0.")
    assert not drift["megapixels"]["drifted"]
    assert all(len(row) <= 5 for row in [*table("enhance-worst"), *drift.values()]), "no wide rows"

    (event,) = told
    assert event["event"] == events.DRIFTED
    assert "luminance" in event["payload"]["columns"]

    client = MlflowClient(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("mirnet-enhance")
    assert experiment is not None
    (night,) = client.search_runs([experiment.experiment_id])
    assert night.info.status == "FINISHED"
    assert night.data.metrics["drift/luminance"] == result.drift["luminance"]
    assert night.data.metrics["images/enhanced"] == 12
    assert "luminance" in night.data.tags["mirnet.drifted"]
    summary = json.loads((target / "_mirnet/runs" / result.run_id / "summary.json").read_text())
    assert {each["column"]: each["distance"] for each in summary["drift"]} == result.drift


def test_a_bad_night_is_seen_as_well(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = twelve_pictures(tmp_path / "in"), tmp_path / "out"
    for number in range(12):
        (source / f"{number}-cut.png").write_bytes(picture(number, 200)[:500])
    (source / "empty.png").touch()
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: told.append(event))
    with pytest.raises(TooManyBad, match="13 of 25 images are bad"):
        nightly.enhance(
            str(source),
            str(target),
            params="demo",
            overrides=TEN_SAY_DRIFT,
        )
    counts = {row["figure"]: row["value"] for row in table("enhance")}
    assert (counts["enhanced"], counts["quarantined"]) == (12, 13)
    assert counts["problem"].startswith("13 of 25 images are bad (truncated 12, empty 1)")
    assert [event["event"] for event in told] == [events.DRIFTED]
    report = EnhanceResult.load(settings.reports_dir / "enhance.json")
    assert (report.quarantined, report.problem) == (13, counts["problem"])
    # a job that finds the target taken leaves that as it is
    with Lease(Ledger(open_store(str(target / "_mirnet"), settings)), lease_s=60):
        assert nightly.enhance(str(source), str(target), params="demo").held_by
    assert EnhanceResult.load(settings.reports_dir / "enhance.json") == report


def test_a_run_keeps_its_model_over_retries(settings: Settings, tmp_path: Path) -> None:
    run = stages.load_run_config("demo")
    assert stages.pin(None, run) == "models:/mirnet/1"
    assert stages.pin("models:/mirnet@champion", run) == "models:/mirnet/1"
    folder = make_model(tmp_path / "model", seed=0)
    assert stages.pin(str(folder), run) == str(folder)


def test_a_second_job_says_who_is_at_work_and_ends_well(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_bytes(picture(1, 60))
    records = open_store(str(tmp_path / "out" / "_mirnet"), settings)
    with Lease(Ledger(records), lease_s=60) as first:
        code = nightly._main([str(tmp_path / "in"), str(tmp_path / "out"), "--params", "demo"])
    assert code == 0
    assert f"is at work on {records.uri} (run {first.run_id}" in capsys.readouterr().out
    assert "is at work on" in str(table("enhance"))
    assert not (tmp_path / "out" / "a.png").exists()


def test_a_night_of_harm_is_seen_and_told(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = twelve_pictures(tmp_path / "in"), tmp_path / "out"
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: told.append(event))
    monkeypatch.setattr(Enhancer, "enhance_images", darken)
    result = nightly.enhance(
        str(source), str(target), params="demo", overrides=["enhance.pass_luminance=null"]
    )
    assert (result.enhanced, result.passed_through, result.harm) == (0, 12, {"darker": 12})
    assert result.harmful
    (event,) = told
    assert event["event"] == events.HARMFUL == "mirnet.model.harmful"
    assert event["payload"]["harm"] == {"darker": 12}
    assert event["payload"]["manifest"] == result.manifest_uri
    counts = {row["figure"]: row["value"] for row in table("enhance")}
    assert (counts["passed_through"], counts["harm/darker"], counts["harmful"]) == (12, 12, True)
    worst = table("enhance-worst")
    assert {(row["fate"], row["reason"]) for row in worst[:12]} == {
        ("passed_through", "harm: darker")
    }
    client = MlflowClient(settings.mlflow_uri)
    experiment = client.get_experiment_by_name("mirnet-enhance")
    assert experiment is not None
    night = client.search_runs([experiment.experiment_id])[0]
    assert night.data.metrics["harm/darker"] == 12
    assert night.data.tags["mirnet.harmful"] == "yes"
    assert not events.announce_harm(result.model_copy(update={"harmful": False}))
