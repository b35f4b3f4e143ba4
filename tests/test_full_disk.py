"""A full disk: one line, and what comes later works."""

from __future__ import annotations

import errno
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from flows.policy import exit_code_of
from flows.safety import redacted_errors
from mirnet.config import Settings
from mirnet.data.versioning import add, init_workspace
from mirnet.errors import DataError
from mirnet.full_disk import DiskFull, disk_full
from mirnet.tracking.client import connect
from mirnet.tracking.outbox import Outbox, Tags, deliver
from mirnet.tracking.runs import track
from mirnet.tracking.sqlite_store import make_whole


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Settings:
    """A workspace with MLflow's tables."""
    settings = Settings(workspace=tmp_path / "workspace")
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace)
    return settings


ENOSPC = OSError(errno.ENOSPC, "No space left on device", "out/a.png")


def wrapped(cause: BaseException) -> RuntimeError:
    error = RuntimeError("worker 0 failed")
    error.__cause__ = cause
    return error


class TaskError(Exception):
    """As Ray's, which carries the error of the worker."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("task failed")
        self.cause = cause


@pytest.mark.parametrize(
    "error",
    [
        ENOSPC,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        sqlite3.OperationalError("database or disk is full"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
        wrapped(ENOSPC),
        TaskError(wrapped(ENOSPC)),
    ],
    ids=str,
)
def test_every_form_of_it_is_known(error: Exception) -> None:
    assert "no space left on the disk" in str(disk_full(error))


@pytest.mark.parametrize(
    "error", [OSError(errno.EACCES, "Permission denied", "a"), ValueError("disk"), KeyError("a")]
)
def test_nothing_else_is_taken_for_it(error: Exception) -> None:
    assert disk_full(error) is None


def test_it_names_the_file_and_the_place() -> None:
    assert str(disk_full(wrapped(ENOSPC))).startswith("out/a.png: no space left on the disk (")


def no_space(*_: object, **__: object) -> None:
    raise ENOSPC


def test_a_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from mirnet import cli

    monkeypatch.setattr(Image.Image, "save", no_space)
    monkeypatch.setattr(sys, "argv", ["mirnet", "data", "sample", str(tmp_path / "data")])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    lines = capsys.readouterr().err.splitlines()
    assert ended.value.code == 1
    assert [line.split(":")[0] for line in lines] == ["mirnet"]
    assert not list(tmp_path.iterdir())


def test_a_flow_says_it_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert exit_code_of(no_space) == 1
    assert capsys.readouterr().err.startswith("mirnet: out/a.png: no space left")
    with pytest.raises(DiskFull), redacted_errors():  # as within tasks
        no_space()


def test_no_server_of_prefect_is_started_without_room(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would end with a traceback, and the flow wait for it for minutes."""
    with temporary_settings({PREFECT_HOME: small_disk, PREFECT_API_URL: None}):
        assert exit_code_of(lambda: pytest.fail("was run")) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mirnet: {small_disk}: 1 MiB free in ")


def test_a_store_that_could_not_be_made_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's own leaves half of the tables, which no later command can open."""
    from mlflow.store.db import utils

    def half(engine: object) -> None:
        utils.InitialBase.metadata.create_all(engine)  # type: ignore[attr-defined]
        raise OSError(errno.ENOSPC, "No space left on device")

    settings = Settings(workspace=tmp_path / "workspace")
    with monkeypatch.context() as patched:
        patched.setattr(utils, "_initialize_tables", half)
        with pytest.raises(ConnectionError, match="No space left"):
            connect(settings)
    assert not list(settings.workspace.iterdir())


def test_the_store_of_a_faster_process_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.store.db import utils

    theirs = b"of the other process"
    monkeypatch.setattr(
        utils, "_initialize_tables", lambda _: (tmp_path / "mlflow.db").write_bytes(theirs)
    )
    make_whole(tmp_path / "mlflow.db")
    assert (tmp_path / "mlflow.db").read_bytes() == theirs


def entry(value: str) -> Tags:
    return Tags(run_id="0" * 32, values={"a": value})


def test_half_a_line_of_the_queue_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "pending" / "run.jsonl"
    outbox = Outbox("http://127.0.0.1:9", path)
    outbox.write(entry("first"))
    with path.open("a") as file:
        file.write('{"kind": "ta')
    outbox.write(entry("second"))
    assert [line.count("kind") for line in path.read_text().splitlines()] == [1, 1]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one MiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_versioning_on_a_full_disk_is_one_line(
    small_disk: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """DVC logs a traceback for each file, and its own error names none."""
    data = small_disk / "data"
    data.mkdir()
    init_workspace(small_disk)
    (data / "1.png").write_bytes(b"x" * 700_000)
    with pytest.raises(DiskFull, match=r"\.dvc/cache/.*MiB free in "):
        add(data)
    assert not caplog.records and not capsys.readouterr().err
    (data / "1.png").write_bytes(b"x" * 100)
    assert add(data).num_files == 1


def test_a_queue_on_a_full_disk_stays_whole(small_disk: Path, store: Settings) -> None:
    path = small_disk / "run.jsonl"
    outbox = Outbox("http://127.0.0.1:9", path)
    outbox.write(entry("first"))
    with pytest.raises(
        DiskFull, match=r"run.jsonl: no space left on the disk \(\d\.\d MiB free in .*disk\)"
    ):
        outbox.write(entry("x" * 2**20))
    assert path.read_text().count("\n") == 1
    with track(store, purpose="train", name="run") as run:
        pass
    path.write_text(path.read_text().replace("0" * 32, run.run_id))
    assert deliver(store.mlflow_uri, path) == 1


def test_the_error_of_the_run_is_raised_not_that_of_its_end(
    store: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise DiskFull("no space left")

    with (
        caplog.at_level(logging.WARNING),
        pytest.raises(DataError, match="bad pair"),
        track(store, purpose="train", name="run"),
    ):
        monkeypatch.setattr(Outbox, "write", full)
        raise DataError("bad pair")
    assert "is left RUNNING: no space left" in caplog.text
