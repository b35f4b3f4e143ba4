from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from mirnet.cli.data import app
from mirnet.data.versioning import (
    add,
    data_version,
    git_commit,
    init_workspace,
    list_remote_files,
    pull,
    push,
    read_pin,
    remember,
    take_snapshot,
)
from mirnet.errors import DataError, StorageError
from mirnet.storage.s3server import S3Server

ROOT = Path(__file__).parents[2]


@pytest.fixture
def workspace(pristine: Path, tmp_path: Path) -> Path:
    """A DVC workspace whose data are pinned."""
    root = tmp_path / "here" / "data"
    init_workspace(root.parent)
    shutil.copytree(pristine, root)
    add(root)
    return root


@pytest.fixture
def credentials(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)


def test_digest_is_what_the_dvc_command_writes(pristine: Path, tmp_path: Path) -> None:
    ours = take_snapshot(pristine)
    root = tmp_path / "data"
    init_workspace(tmp_path)
    shutil.copytree(pristine, root)
    command = [sys.executable, "-m", "dvc", "add", "--quiet", "data"]
    subprocess.run(command, cwd=tmp_path, check=True, env=os.environ | {"DVC_NO_ANALYTICS": "1"})
    (out,) = yaml.safe_load((tmp_path / "data.dvc").read_text())["outs"]
    assert ours.digest == out["md5"]
    assert (len(ours.files), ours.size) == (out["nfiles"], out["size"])
    assert len(ours.digest) == 36


def test_snapshot_writes_nothing(pristine: Path) -> None:
    before = sorted(p.name for p in pristine.parent.iterdir())
    assert data_version(pristine).status == "untracked"
    assert sorted(p.name for p in pristine.parent.iterdir()) == before


def test_changes_have_names(workspace: Path) -> None:
    assert data_version(workspace).status == "clean"
    (workspace / "our485/low/rocket-01.png").unlink()
    (workspace / "our485/low/rocket-02.png").write_bytes(b"x")
    (workspace / "new.txt").write_text("x")
    version = data_version(workspace)
    assert version.status == "modified"
    assert version.changed == ("new.txt", "our485/low/rocket-01.png", "our485/low/rocket-02.png")


def test_listing_is_remembered(pristine: Path, tmp_path: Path) -> None:
    init_workspace(tmp_path)
    root = tmp_path / "data"
    shutil.copytree(pristine, root)
    snapshot = take_snapshot(root)
    outs = [{"md5": snapshot.digest, "path": "data", "hash": "md5"}]
    (tmp_path / "data.dvc").write_text(yaml.safe_dump({"outs": outs}))
    (root / "new.txt").write_text("x")
    assert data_version(root).changed == ()
    remember(snapshot)
    assert data_version(root).changed == ("new.txt",)


def test_ignored_files_do_not_count(workspace: Path) -> None:
    (workspace.parent / ".dvcignore").write_text("__pycache__\n")
    (workspace / "__pycache__").mkdir()
    (workspace / "__pycache__/x.pyc").write_bytes(b"x")
    assert data_version(workspace).status == "clean"


def test_repository_pins_lol_v1() -> None:
    pin = read_pin(ROOT / "data")
    assert pin is not None
    assert (pin.digest, pin.num_files, pin.size) == (
        "d48f655e14b913db367785d6acd73c6a.dir",
        1000,
        348058979,
    )


@pytest.mark.usefixtures("credentials")
def test_push_and_pull_through_s3(workspace: Path, other: Path, server: S3Server) -> None:
    place: dict[str, Any] = {"remote": "s3://data/store", "endpoint_url": server.endpoint_url}
    files = len(take_snapshot(workspace).files)
    assert push(workspace, **place) == files + 1  # and the list itself
    assert push(workspace, **place) == 0
    assert pull(other, **place) == files + 1
    assert data_version(other).digest == data_version(workspace).digest
    assert data_version(other).status == "clean"
    listed = list_remote_files(other, **place)
    assert {f.path: f.md5 for f in listed} == take_snapshot(workspace).md5
    first = listed[0]
    assert first.url == f"s3://data/store/files/md5/{first.md5[:2]}/{first.md5[2:]}"


@pytest.mark.usefixtures("credentials")
def test_remote_failures_say_why(
    workspace: Path, other: Path, server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.endpoint_url
    with pytest.raises(StorageError, match=r"s3://nowhere/x: .*bucket does not exist"):
        push(workspace, remote="s3://nowhere/x", endpoint_url=url)
    with pytest.raises(StorageError, match=r"s3://data/empty: .*do not exist"):
        pull(other, remote="s3://data/empty", endpoint_url=url)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match="s3://data/store2: Forbidden"):
        push(workspace, remote="s3://data/store2", endpoint_url=url)
    with pytest.raises(StorageError, match=r"s3://data/store2: .*Forbidden"):
        pull(other, remote="s3://data/store2", endpoint_url=url)
    assert not other.exists()


def test_folder_as_remote(workspace: Path, other: Path, tmp_path: Path) -> None:
    for root in (workspace, other):
        (root.parent / ".dvc/config.local").write_text(
            f"[core]\n    remote = disk\n['remote \"disk\"']\n    url = {tmp_path / 'store'}\n"
        )
    push(workspace)
    pull(other, remote="disk")
    assert data_version(other).status == "clean"
    (other / "pairs.csv").write_text("changed")
    with pytest.raises(DataError, match="--force"):
        pull(other)
    pull(other, force=True)
    assert data_version(other).status == "clean"


def test_what_cannot_be_moved(workspace: Path, other: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no remote"):
        pull(other)
    (workspace / "new.txt").write_text("x")
    with pytest.raises(DataError, match="not the pinned version"):
        push(workspace, remote="s3://data/x")
    with pytest.raises(DataError, match="nothing to pull"):
        pull(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such folder"):
        add(tmp_path / "nowhere")
    (tmp_path / "data.dvc").write_text("outs: 3")
    with pytest.raises(DataError, match=r"data\.dvc: not a \.dvc file"):
        read_pin(tmp_path / "data")


def test_commit_is_known_inside_git_only(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "--quiet"], cwd=tmp_path, check=True)
    assert git_commit(tmp_path) is None
    commit = [*git, "commit", "--quiet", "--allow-empty", "-m", "x"]
    subprocess.run(commit, cwd=tmp_path, check=True)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert git_commit(tmp_path) == head.stdout.strip()


def test_an_image_knows_the_commit_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no repository; a checkout that is mounted into it is not what runs."""
    monkeypatch.setenv("IMAGE_COMMIT", "c0ffee")
    assert git_commit(tmp_path) == "c0ffee"
    assert git_commit(Path(__file__).parent) == "c0ffee"
    monkeypatch.setenv("IMAGE_COMMIT", "")
    assert git_commit(tmp_path) is None


def test_import_says_whether_it_is_the_pinned_version(workspace: Path, other: Path) -> None:
    run = CliRunner()
    source = str(workspace)
    for name in ("pairs.csv", "SOURCES.md"):
        (workspace / name).unlink()
    add(workspace)
    shutil.copy(workspace.parent / "data.dvc", other.parent)
    missing = run.invoke(app, ["status", "--data", str(other)])
    assert isinstance(missing.exception, DataError)
    assert "missing" in str(missing.exception)
    imported = run.invoke(app, ["import", source, "--data", str(other)])
    assert imported.exit_code == 0, imported.output
    assert "16 pairs, clean" in imported.output
    assert run.invoke(app, ["status", "--data", str(other)]).exit_code == 0
    (other / "our485/low/rocket-01.png").write_bytes(b"x")
    modified = run.invoke(app, ["status", "--data", str(other)])
    assert modified.exit_code == 1
    assert "our485/low/rocket-01.png" in modified.output
