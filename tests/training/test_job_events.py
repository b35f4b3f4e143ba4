"""The channel between a job on a cluster and whoever follows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import fs

from mirnet.errors import StorageError
from mirnet.results import EpochMetrics, LogLine, NodeUsage, SamplePicture
from mirnet.training.ray.job_events import JobEnd, JobEvent, JobEventReader, JobEventWriter

EVENTS: list[JobEvent] = [
    EpochMetrics(epoch=0, step=3, lr=0.1, train_loss=1.0, train_psnr=9.0),
    LogLine(level=30, message="step 7: not finite\nback to step 5"),
    NodeUsage(epoch=0, node="10.0.0.1", values={"cpu_utilization_percentage": 5.0}),
    SamplePicture(epoch=0, pair="our485/1.png", jpeg=b"\xff\xd8picture"),
    JobEnd(num_workers=2),
    JobEnd(error="step 3: not finite"),
]
LOCAL = fs.LocalFileSystem()


def test_each_event_arrives_once_and_as_what_it_was(tmp_path: Path) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path / "events"))
    reader = JobEventReader(LOCAL, str(tmp_path / "events"))
    assert reader.fresh() == []
    for event in EVENTS:
        writer.write(event)
        assert reader.fresh() == [event]
        assert reader.fresh() == []
    assert JobEventReader(LOCAL, str(tmp_path / "events")).fresh() == EVENTS


def test_events_over_s3(s3: str) -> None:
    from mirnet.config import load_settings
    from mirnet.storage.arrow import open_filesystem

    settings = load_settings().model_copy(update={"storage_uri": s3})
    filesystem, root = open_filesystem(settings)
    writer = JobEventWriter(filesystem, f"{root}/run/events/a")
    for event in EVENTS:
        writer.write(event)
    assert JobEventReader(filesystem, f"{root}/run/events/a").fresh() == EVENTS
    assert JobEventReader(filesystem, f"{root}/run/events/b").fresh() == []


def test_what_a_store_refuses_comes_with_the_next_event(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "events"
    folder.write_text("in the way")
    writer = JobEventWriter(LOCAL, str(folder))
    for event in EVENTS[:3]:
        writer.write(event)
    assert "3 events wait" in capsys.readouterr().err
    folder.unlink()
    writer.write(EVENTS[3])
    assert JobEventReader(LOCAL, str(folder)).fresh() == EVENTS[:4]


def test_a_reader_loses_nothing_when_the_store_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path))
    for event in EVENTS[:3]:
        writer.write(event)
    reader = JobEventReader(LOCAL, str(tmp_path))
    read = reader._read

    def away(number: int) -> str | None:
        if number == 2:
            raise StorageError("refused")
        return read(number)

    with monkeypatch.context() as during:
        during.setattr(reader, "_read", away)
        with pytest.raises(StorageError):
            reader.fresh()
    assert reader.fresh() == EVENTS[:3]


def test_an_event_of_another_version_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path))
    for event in EVENTS[:2]:
        writer.write(event)
    (tmp_path / "000000.json").write_text('{"news": 1}')
    assert JobEventReader(LOCAL, str(tmp_path)).fresh() == [EVENTS[1]]
    assert "000000.json" in caplog.text
