"""The channel between a job on a cluster and whoever follows it."""

from __future__ import annotations

import logging
import math
import os
import pickle
import signal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer

import pytest
from pyarrow import fs

from mirnet.config import Settings, load_settings
from mirnet.errors import StorageError
from mirnet.results import EpochMetrics, LogLine, NodeUsage, SampleImage
from mirnet.signals import termination_as_exception
from mirnet.storage.arrow import open_filesystem, read_text
from mirnet.training.ray import job_events
from mirnet.training.ray.job_events import JobEnd, JobEvent, JobEventReader, JobEventWriter

EVENTS: list[JobEvent] = [
    EpochMetrics(epoch=0, step=3, lr=0.1, train_loss=1.0, train_psnr=9.0),
    LogLine(level=30, message="step 7: not finite\nback to step 5"),
    NodeUsage(epoch=0, node="10.0.0.1", values={"cpu_utilization_percentage": 5.0}),
    SampleImage(epoch=0, pair="our485/1.png", jpeg=b"\xff\xd8picture"),
    JobEnd(num_workers=2),
    JobEnd(error="step 3: not finite"),
]
LOCAL = fs.LocalFileSystem()


def fresh(reader: JobEventReader) -> list[JobEvent]:
    return list(iter(reader.next, None))


def test_each_event_arrives_once_and_as_what_it_was(tmp_path: Path) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path / "events"))
    reader = JobEventReader(LOCAL, str(tmp_path / "events"))
    assert fresh(reader) == []
    for event in EVENTS:
        writer.write(event)
        assert fresh(reader) == [event]
        assert fresh(reader) == []
    assert fresh(JobEventReader(LOCAL, str(tmp_path / "events"))) == EVENTS


def test_events_over_s3(s3: str) -> None:
    settings = load_settings().model_copy(update={"storage_uri": s3})
    filesystem, root = open_filesystem(settings)
    writer = JobEventWriter(filesystem, f"{root}/run/events/a")
    for event in EVENTS:
        writer.write(event)
    assert fresh(JobEventReader(filesystem, f"{root}/run/events/a")) == EVENTS
    assert fresh(JobEventReader(filesystem, f"{root}/run/events/b")) == []


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
    assert fresh(JobEventReader(LOCAL, str(folder))) == EVENTS[:4]


def test_flush_asks_a_store_that_refuses_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_events, "PAUSE_S", 0.01)
    folder = tmp_path / "events"
    folder.write_text("in the way")
    writer = JobEventWriter(LOCAL, str(folder))
    for event in EVENTS[:3]:
        writer.write(event)
    with pytest.raises(StorageError, match=r"3 event\(s\) could not be written: .*000000\.json"):
        writer.flush(0.05)
    with termination_as_exception(), pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
        writer.flush(60)
    Timer(0.1, folder.unlink).start()
    writer.flush(60)
    assert fresh(JobEventReader(LOCAL, str(folder))) == EVENTS[:3]


def test_a_reader_gives_out_what_came_before_a_fault_and_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path))
    for event in EVENTS[:3]:
        writer.write(event)
    reader = JobEventReader(LOCAL, str(tmp_path))

    def away(filesystem: fs.FileSystem, path: str) -> str | None:
        if path.endswith("2.json"):
            raise OSError("refused")
        return read_text(filesystem, path)

    with monkeypatch.context() as during:
        during.setattr(job_events, "read_text", away)
        assert [reader.next(), reader.next()] == EVENTS[:2]
        with pytest.raises(StorageError, match="refused"):
            reader.next()
    assert fresh(reader) == EVENTS[2:3]


def test_a_follower_s_store_is_asked_a_few_times_only(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """20 attempts would take minutes in which no signal is heard."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    asked: list[str] = []

    class Overloaded(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append(self.path)
            self.send_response(503)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Overloaded) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        place = settings.model_copy(update={"storage_uri": "s3://b/p", "s3_endpoint_url": address})
        filesystem, root = open_filesystem(place, attempts=2)
        travelled = pickle.loads(pickle.dumps(filesystem))
        with pytest.raises(StorageError, match="503"):
            JobEventReader(travelled, f"{root}/run/events/a").next()
        server.shutdown()
    assert asked == ["/b/p/run/events/a/000000.json"] * 2


def test_sigterm_is_heard_between_two_events(tmp_path: Path) -> None:
    writer = JobEventWriter(LOCAL, str(tmp_path))
    for event in EVENTS[:2]:
        writer.write(event)
    reader = JobEventReader(LOCAL, str(tmp_path))
    with termination_as_exception():
        assert reader.next() == EVENTS[0]
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit):
            reader.next()
    assert fresh(reader) == [EVENTS[1]]


def test_values_that_are_not_finite_survive(tmp_path: Path) -> None:
    epoch = EpochMetrics(
        epoch=0, step=3, lr=0.1, train_loss=math.nan, train_psnr=-math.inf, val_psnr=math.inf
    )
    writer = JobEventWriter(LOCAL, str(tmp_path))
    writer.write(epoch)
    writer.write(NodeUsage(epoch=0, node="10.0.0.1", values={"gpu_power_watts": math.nan}))
    read, usage = fresh(JobEventReader(LOCAL, str(tmp_path)))
    assert isinstance(read, EpochMetrics) and isinstance(usage, NodeUsage)
    assert repr(read) == repr(epoch)  # nan is not equal to itself
    assert math.isnan(usage.values["gpu_power_watts"])


@pytest.mark.parametrize(
    ("text", "level", "event"),
    [
        ('{"kind": "weather", "sky": "grey"}', logging.DEBUG, None),
        ('{"kind": "end", "num_workers": 2, "mood": 1}', logging.DEBUG, JobEnd(num_workers=2)),
        ('{"kind": "epoch", "epoch": "first"}', logging.WARNING, None),
        ('{"kind": "ep', logging.WARNING, None),
        ("[1]", logging.WARNING, None),
    ],
)
def test_kinds_and_fields_of_another_version_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, text: str, level: int, event: JobEvent | None
) -> None:
    caplog.set_level(logging.DEBUG, "mirnet")
    writer = JobEventWriter(LOCAL, str(tmp_path))
    for written in EVENTS[:2]:
        writer.write(written)
    (tmp_path / "000000.json").write_text(text)
    expected = [EVENTS[1]] if event is None else [event, EVENTS[1]]
    assert fresh(JobEventReader(LOCAL, str(tmp_path))) == expected
    (record,) = caplog.records
    assert record.levelno == level and "000000.json" in record.message
