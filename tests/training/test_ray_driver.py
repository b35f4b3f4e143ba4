"""What the driver of a submitted job leaves behind, with a training that is over at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer

import pytest
from pyarrow import fs

from mirnet.config import Settings, load_settings
from mirnet.errors import TrainingError
from mirnet.storage.arrow import open_filesystem
from mirnet.training.ray import driver, job_events
from mirnet.training.ray.driver import (
    FAILED_WITH_REASON,
    delete_earlier_events,
    events_folder,
    main,
)
from mirnet.training.ray.job_events import JobEnd, JobEventReader, JobEventWriter


@pytest.fixture
def events(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of the events of run r, with those of an earlier job."""
    place = settings.model_copy(update={"storage_uri": str(tmp_path)})
    monkeypatch.setattr(driver, "load_settings", lambda: place)
    monkeypatch.setattr(driver, "apply_engine_defaults", lambda: None)
    monkeypatch.setattr(job_events, "PAUSE_S", 0.01)
    earlier = tmp_path / "r" / "events" / "earlier"
    earlier.mkdir(parents=True)
    (earlier / "000000.json").write_text("{}")
    ours = logging.getLogger("mirnet")
    level, handlers = ours.level, list(ours.handlers)
    yield earlier.parent
    ours.setLevel(level)
    ours.handlers[:] = handlers


def trained(meanwhile: Callable[[], object] = lambda: None) -> Callable[..., int]:
    def drive(*_: object) -> int:
        meanwhile()
        return 2

    return drive


def last_event(folder: Path) -> object:
    return list(iter(JobEventReader(fs.LocalFileSystem(), str(folder)).next, None))[-1]


def test_a_success_is_told_and_the_events_of_earlier_jobs_are_deleted(
    events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "drive", trained())
    assert main("r", "c") == 0
    assert last_event(events / "c") == JobEnd(num_workers=2)
    assert [folder.name for folder in events.iterdir()] == ["c"]


def test_a_store_that_refuses_at_the_end_is_waited_for(
    events: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def block() -> None:
        (events / "c").write_text("in the way")
        Timer(0.2, (events / "c").unlink).start()

    monkeypatch.setattr(driver, "drive", trained(block))
    assert main("r", "c") == 0
    assert last_event(events / "c") == JobEnd(num_workers=2)


def test_a_success_that_cannot_be_told_is_an_error_with_its_reason(
    events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(driver, "FLUSH_S", 0.05)
    monkeypatch.setattr(driver, "drive", trained(lambda: (events / "c").write_text("in the way")))
    assert main("r", "c") == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("1 event(s) could not be written: checkpoint store at ")


def test_a_failure_that_cannot_be_told_keeps_its_reason_in_the_last_line(
    events: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> int:
        (events / "c").write_text("in the way")
        raise TrainingError("not\nfinite")

    monkeypatch.setattr(driver, "FLUSH_S", 0.05)
    monkeypatch.setattr(driver, "drive", fail)
    assert main("r", "c") == FAILED_WITH_REASON
    assert capsys.readouterr().err.splitlines()[-1] == r"not\nfinite"


def test_earlier_events_that_cannot_be_deleted_are_only_logged(
    events: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class NoDelete(fs.SubTreeFileSystem):  # type: ignore[misc]
        def delete_dir(self, _path: str) -> None:
            raise OSError("access denied")

    delete_earlier_events(NoDelete("/", fs.LocalFileSystem()), str(events.parent), "c")
    assert "access denied" in caplog.text
    assert (events / "earlier").is_dir()


def test_earlier_events_on_s3_are_deleted(s3: str) -> None:
    settings = load_settings().model_copy(update={"storage_uri": s3})
    filesystem, root = open_filesystem(settings)
    delete_earlier_events(filesystem, f"{root}/d", "c")  # there are none yet
    for channel in ("a", "b", "c"):
        JobEventWriter(filesystem, events_folder(f"{root}/d", channel)).write(JobEnd(num_workers=2))
    delete_earlier_events(filesystem, f"{root}/d", "c")
    kept = filesystem.get_file_info(fs.FileSelector(f"{root}/d/events"))
    assert [info.base_name for info in kept] == ["c"]
    reader = JobEventReader(filesystem, events_folder(f"{root}/d", "c"))
    assert reader.next() == JobEnd(num_workers=2)
