"""Secrets in addresses are not stored by Prefect: parameters, states, logs and artifacts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectHTTPStatusError
from prefect.logging.handlers import APILogWorker
from prefect.settings import get_current_settings
from prefect.testing.utilities import prefect_test_harness

from flows import enhance as nightly, retrain as training
from flows.batch_artifacts import show_night
from flows.safety import markdown_text
from mirnet import stages
from mirnet.errors import MirnetError, UsageError
from mirnet.results import EnhanceResult, ImageFate
from tests.planted import HOSTILE, SECRET, controls, files_with

ADDRESS = f"s3://key:{SECRET}@photos/night"


@pytest.fixture(scope="module", autouse=True)
def database() -> Iterator[Path]:
    with prefect_test_harness(server_startup_timeout=120):
        url = get_current_settings().server.database.connection_url
        assert url is not None
        yield Path(url.get_secret_value().partition(":///")[2]).parent


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))
    (tmp_path / "in").mkdir()
    return tmp_path


def stored(text: str, *folders: Path) -> list[Path]:
    """Files with the text, after what waits was sent."""
    APILogWorker.drain_all(timeout=20)
    return files_with(text, folders)


def test_an_address_with_credentials_is_refused_and_not_stored(
    database: Path, places: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match="credentials belong in AWS_ACCESS_KEY_ID"):
        nightly.enhance(ADDRESS, "s3://refused-marker/x")
    assert nightly._main([ADDRESS, str(places / "out")]) == 2
    assert training._main(["--data", f"https://host/data?token={SECRET}"]) == 2
    written = capfd.readouterr()
    assert SECRET not in written.out + written.err
    assert "credentials belong in AWS_ACCESS_KEY_ID" in written.err
    assert stored("refused-marker", database)  # the search finds what is there
    assert not stored(SECRET, database, places)


def test_errors_of_other_libraries_are_stored_without_secrets(
    database: Path,
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any, **__: Any) -> EnhanceResult:
        raise ConnectionError(f"no route-marker to postgresql://mirnet:{SECRET}@db/mlflow")

    monkeypatch.setattr(stages, "pin", lambda model, _run: model)
    monkeypatch.setattr(stages, "enhance", fail)
    with pytest.raises(MirnetError, match="ConnectionError: no route-marker to postgresql://"):
        nightly.enhance(str(places / "in"), str(places / "out"), "model", "demo")
    assert nightly._main([str(places / "in"), str(places / "out"), "--model", "m"]) == 1
    written = capfd.readouterr()
    assert "route-marker" in written.err and SECRET not in written.out + written.err
    assert stored("route-marker", database)
    assert not stored(SECRET, database, places)


def test_the_server_refuses_the_run_of_a_deployment_with_a_secret(database: Path) -> None:
    deployment: Any = nightly.enhance.to_deployment("planted")
    deployment = deployment.apply()
    assert isinstance(deployment, UUID)
    good = {"source": "s3://photos/in", "target": "s3://photos/out", "params": "cpu"}
    with get_client(sync_client=True) as client:
        client.create_flow_run_from_deployment(deployment, parameters=good)
        for bad in (ADDRESS, f"https://h/x?X-Amz-Signature={SECRET}"):
            for name in ("source", "target", "model"):
                with pytest.raises(PrefectHTTPStatusError):
                    client.create_flow_run_from_deployment(
                        deployment, parameters=good | {name: bad}
                    )
    assert stored("s3://photos/out", database)
    assert not stored(SECRET, database)


def test_names_are_no_markup_in_artifacts(database: Path) -> None:
    held = f"held by {HOSTILE} ![x](http://evil)"
    result = EnhanceResult(
        run_id="r", source=HOSTILE, target="out", model="m", planned=1, enhanced=1, seconds=1.0
    )
    show_night(result.model_copy(update={"held_by": held}), None, drift_distance=0.1)
    found = Artifact.get("enhance")
    assert found is not None and isinstance(found.data, str)
    assert not controls(found.data) and "\n" not in found.data
    assert r"\!\[x\]\(http\:" in found.data and r"\<img src=x\>" in found.data

    worst = (ImageFate(input=HOSTILE, fate="failed", reason=f"https://h/?sig={SECRET}"),)
    show_night(result.model_copy(update={"worst": worst}), None, drift_distance=0.1)
    for key in ("enhance", "enhance-worst"):
        artifact = Artifact.get(key)
        assert artifact is not None and artifact.description is not None
        assert not controls(artifact.description) and "<img" not in artifact.description.replace(
            "\\<", ""
        )
    assert not stored(SECRET, database)


def test_markdown_keeps_the_text() -> None:
    assert markdown_text("mirnet version 7, 12 %") == "mirnet version 7, 12 %"
    assert markdown_text("# a\n\n<b>") == r"\# a\\n\\n\<b\>"
