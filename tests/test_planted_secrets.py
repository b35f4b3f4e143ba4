"""A secret in an address or variable reaches neither the terminal nor any file of the pipeline."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mirnet.cli import main
from mirnet.config import Settings, load_settings
from mirnet.params import load_params
from mirnet.tracking import registry, track
from tests.planted import SECRET, files_with

S3 = f"s3://AKIA:{SECRET}@photos/night"
PRESIGNED = f"https://photos.s3.amazonaws.com/a.png?X-Amz-Signature={SECRET}"
CLOSED = f"http://ann:{SECRET}@127.0.0.1:1"


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, folder in (("WORKSPACE", "workspace"), ("REPORTS_DIR", "reports")):
        (tmp_path / folder).mkdir()
        monkeypatch.setenv(f"MIRNET_{name}", str(tmp_path / folder))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("words", "variables", "expected"),
    [
        (("enhance", S3, "out"), {}, "credentials belong in"),
        (("enhance", "in", S3), {}, "credentials belong in"),
        (("enhance", PRESIGNED, "out"), {}, "credentials belong in"),
        (("enhance", "in", "out", "--model", PRESIGNED), {}, "credentials belong in"),
        (("enhance", "in", "out", PRESIGNED), {}, "unexpected extra argument"),
        (("verify", S3), {}, "credentials belong in"),
        (("lineage", f"{S3}/a.png"), {}, "credentials belong in"),
        (("runs", "list"), {"MIRNET_TRACKING_URI": CLOSED}, "cannot be reached"),
        (("registry", "list"), {"MIRNET_TRACKING_URI": CLOSED}, "cannot be reached"),
        (
            ("enhance", "in", "out"),
            {"MIRNET_TRACKING_URI": f"{CLOSED}/?token={SECRET}"},
            "cannot be reached",
        ),
        (("runs", "list"), {"MIRNET_TRACKING_URI": f"nodb://ann:{SECRET}@h/d"}, "MLflow at nodb"),
        (
            ("doctor",),
            {"MIRNET_TRACKING_URI": CLOSED, "PREFECT_API_URL": f"{CLOSED}/api"},
            "prefect",
        ),
        (("runs", "list"), {"MIRNET_S3_ENDPOINT_URL": CLOSED}, "MIRNET_S3_ENDPOINT_URL"),
        (("runs", "list"), {"MIRNET_S3_TIMEOUT_S": SECRET}, "MIRNET_S3_TIMEOUT_S"),
        (("verify", "s3://photos/x"), {"AWS_PROFILE": SECRET}, "AWS_PROFILE"),
        (("verify", "s3://photos/x"), {"AWS_ENDPOINT_URL": CLOSED}, "credentials belong in"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_command_that_fails_shows_no_secret(
    words: tuple[str, ...],
    variables: dict[str, str],
    expected: str,
    places: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["mirnet", "--verbose", *words])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code
    written = capfd.readouterr()
    assert expected in written.out + written.err
    assert SECRET not in written.out + written.err
    assert not files_with(SECRET, [places])


def test_pulling_from_a_remote_shows_no_secret(
    places: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from mirnet.data.versioning import add, init_workspace

    project = places / "project"
    init_workspace(project)
    (project / "data").mkdir()
    (project / "data" / "a.txt").write_text("a")
    add(project / "data")
    config = project / ".dvc" / "config.local"
    config.write_text(f"[core]\nremote = r\n['remote \"r\"']\nurl = local://{S3[5:]}\n")
    for remote in (("--remote", S3), ()):
        words = ["mirnet", "--verbose", "data", "pull", "--data", str(project / "data")]
        monkeypatch.setattr(sys, "argv", [*words, *remote])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code
    written = capfd.readouterr()
    assert written.err.count("mirnet: ") == 2 and SECRET not in written.out + written.err
    assert files_with(SECRET, [places]) == [config]


def test_mlflow_stores_no_secret_of_its_surroundings(
    places: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run, tags, params and a registered model, in a repository whose remote has a token."""
    repository = places / "repository"
    repository.mkdir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(repository)]
    for words in (
        ("init", "-q"),
        ("remote", "add", "origin", f"https://x:{SECRET}@github.com/a/b"),
        ("commit", "-q", "--allow-empty", "-m", "x"),
    ):
        subprocess.run([*git, *words], check=True)
    monkeypatch.chdir(repository)
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY"):
        monkeypatch.setenv(name, SECRET)
    settings: Settings = load_settings()
    with track(settings, purpose="train", name="planted-marker", key="k") as run:
        run.log_params(load_params("demo"))
        run.log_text("{}", "result.json")
    registry.register(folder, name="planted", run_id=run.run_id, settings=settings)
    searched = [settings.workspace, settings.reports_dir]
    assert settings.workspace / "mlflow.db" in files_with("planted-marker", searched)
    assert not files_with(SECRET, searched)
