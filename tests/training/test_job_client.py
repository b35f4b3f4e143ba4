"""What the client of a submitted job does when it, the job or the cluster's head goes away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from prefect.exceptions import TerminationSignal
from pyarrow.fs import LocalFileSystem
from ray.job_submission import JobStatus

from mirnet.errors import MirnetError, ServiceError, StorageError, TrainingError
from mirnet.results import EpochMetrics, LogLine
from mirnet.training.ray import jobs
from mirnet.training.ray.driver import FAILED_WITH_REASON
from mirnet.training.ray.job_events import JobEnd, JobEvent, JobEventReader, JobEventWriter

DONE = JobEnd(num_workers=2)


@dataclass
class Cluster:
    """Stands in for Ray's client and for the driver of its job.

    Each answer is a status with the events that came meanwhile, or an error.
    """

    answers: list[Any]
    store: Path = Path()
    stopped: list[str] = field(default_factory=list)
    jobs: list[SimpleNamespace] = field(default_factory=list)
    submit: Callable[[], str] = lambda: "mirnet-run"
    message: str = ""
    exit_code: int = 1
    _events: JobEventWriter | None = None

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def submit_job(self, *, entrypoint: str, **_: object) -> str:
        name = self.submit()
        self.speak(*entrypoint.split()[-2:])
        return name

    def speak(self, run_name: str, channel: str) -> None:
        folder = self.store / run_name / "events" / channel
        self._events = JobEventWriter(LocalFileSystem(), str(folder))

    def get_job_info(self, _id: str) -> SimpleNamespace:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer()
        status, *events = answer
        for event in events:
            self._events.write(event)
        return SimpleNamespace(
            status=JobStatus(status), message=self.message, driver_exit_code=self.exit_code
        )

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)


@pytest.fixture
def follow(train, small_params, settings, tmp_path, monkeypatch):
    """Train on a cluster that answers so."""
    place = settings.model_copy(
        update={"ray_address": "http://head:8265", "storage_uri": str(tmp_path / "store")}
    )
    monkeypatch.setattr(jobs, "POLL_S", 0.01)
    monkeypatch.setattr(jobs, "END_PATIENCE_S", 0.1)

    def run(cluster: Cluster, **listeners: object) -> object:
        cluster.store = tmp_path / "store"
        monkeypatch.setattr(jobs, "JobSubmissionClient", lambda _address: cluster)
        return train(small_params(), place, **listeners)

    return run


def test_a_cluster_whose_agents_are_not_there_yet_is_waited_for(follow):
    early = RuntimeError(
        "Request failed with status code 500: No available agent to submit job, "
        "please try again later."
    )
    answers: list[Any] = [early, early, "mirnet-run"]

    def submit() -> str:
        answer = answers.pop(0)
        if isinstance(answer, RuntimeError):
            raise answer
        return answer

    failed = (JobStatus.FAILED, JobEnd(error="stopped here"))
    with pytest.raises(TrainingError, match="stopped here"):
        follow(Cluster([failed], submit=submit, exit_code=FAILED_WITH_REASON))
    assert answers == []


def test_a_cluster_that_refuses_a_job_is_not_asked_again(follow):
    asked: list[int] = []

    def submit() -> str:
        asked.append(1)
        raise RuntimeError("Request failed with status code 400: no such package")

    with pytest.raises(ServiceError, match="no such package"):
        follow(Cluster([], submit=submit))
    assert asked == [1]


def test_a_cancelled_flow_run_ends_its_job(follow):
    """Prefect turns SIGTERM into an exception that is no Exception."""

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def cancel(*_: object):
        raise TerminationSignal(signal.SIGTERM)

    cluster = Cluster([(JobStatus.RUNNING,), terminate])
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        with pytest.raises(TerminationSignal):
            follow(cluster)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cluster.stopped == ["mirnet-run"]


def test_a_head_that_is_away_for_a_while_is_asked_again(follow, caplog):
    away = requests.ConnectionError("refused")
    cluster = Cluster([(JobStatus.RUNNING,), away, RuntimeError("502"), ("SUCCEEDED", DONE)])
    with pytest.raises(MirnetError, match="result"):  # there is no checkpoint behind this job
        follow(cluster)
    assert not cluster.answers and not cluster.stopped
    assert "http://head:8265 does not answer: refused" in caplog.text


def test_a_head_that_stays_away_is_an_error_that_is_tried_again(follow, monkeypatch):
    monkeypatch.setattr(jobs, "PATIENCE_S", 0.1)
    cluster = Cluster([requests.ConnectionError("refused")] * 1000)
    with pytest.raises(ServiceError, match="does not answer: refused") as caught:
        follow(cluster)
    assert caught.value.transient
    assert not cluster.stopped  # the job may well go on: who asks again follows it


@pytest.mark.parametrize(
    ("answer", "exit_code", "kind", "reason"),
    [
        ((JobStatus.FAILED,), 137, ServiceError, "ended as FAILED: Killed"),
        (
            (JobStatus.SUCCEEDED,),
            0,
            ServiceError,
            "its end event cannot be read: there is none in /",
        ),
        ((JobStatus.FAILED, JobEnd(error="not finite")), 64, TrainingError, "not finite"),
        ((JobStatus.STOPPED,), None, TrainingError, "ended as STOPPED"),
        # its events lie where we cannot see them
        ((JobStatus.FAILED,), FAILED_WITH_REASON, TrainingError, "ended as FAILED: Killed"),
    ],
)
def test_only_a_job_that_died_without_a_word_is_worth_another_try(
    follow, answer, exit_code, kind, reason
):
    with pytest.raises(kind, match=f"job mirnet-run on http://head:8265.*{reason}") as caught:
        follow(Cluster([answer], message="Ray's own words\nKilled\n", exit_code=exit_code))
    assert type(caught.value) is kind


def test_events_are_handed_on_once_and_in_order(follow):
    epochs = [
        EpochMetrics(epoch=n, step=n, lr=0.1, train_loss=1.0, train_psnr=9.0) for n in range(3)
    ]
    told: list[JobEvent] = []
    answers = [(JobStatus.RUNNING, *epochs[:2]), (JobStatus.RUNNING,), ("FAILED", epochs[2])]
    with pytest.raises(ServiceError):
        follow(Cluster(answers), on_epoch=told.append)
    assert told == epochs


def test_a_client_that_is_started_again_follows_the_job_from_its_first_event(follow):
    first, second = (
        EpochMetrics(epoch=n, step=n, lr=0.1, train_loss=1.0, train_psnr=9.0) for n in range(2)
    )
    cluster = Cluster([(JobStatus.RUNNING, first), ZeroDivisionError()])
    with pytest.raises(ZeroDivisionError):
        follow(cluster)
    assert not cluster.stopped
    channel = Path(cluster._events.folder).name
    job = SimpleNamespace(
        submission_id="mirnet-run",
        status=JobStatus.RUNNING,
        metadata={"mirnet_run": "run", "mirnet_events": channel},
    )
    again = Cluster(
        [(JobStatus.RUNNING, second), (JobStatus.FAILED, JobEnd(error="not finite"))], jobs=[job]
    )
    again._events = cluster._events  # the driver did not notice
    told: list[JobEvent] = []
    with pytest.raises(TrainingError, match="not finite"):
        follow(again, on_progress=told.append)
    assert told == [first, second]


def test_the_end_of_a_job_may_be_seen_after_its_status(follow, monkeypatch):
    monkeypatch.setattr(jobs, "END_PATIENCE_S", 60)
    cluster: Cluster = Cluster([lambda: _later(cluster)])
    with pytest.raises(MirnetError, match="result"):  # there is no checkpoint behind this job
        follow(cluster)


def _later(cluster: Cluster) -> tuple[object, ...]:
    Timer(0.2, cluster._events.write, [DONE]).start()
    return (JobStatus.SUCCEEDED,)


@pytest.fixture
def away(monkeypatch):
    """Let the store refuse so many reads."""
    read = JobEventReader.next

    def refuse(count: int) -> list[int]:
        left = [count]

        def next_event(self: JobEventReader) -> JobEvent | None:
            if left[0] == 0:
                return read(self)
            left[0] -= 1
            raise StorageError("checkpoint store at x: slow down")

        monkeypatch.setattr(JobEventReader, "next", next_event)
        return left

    return refuse


def test_a_store_that_is_away_is_asked_again_while_ray_answers(follow, away, monkeypatch, caplog):
    monkeypatch.setattr(jobs, "PATIENCE_S", 0)
    left = away(5)
    answers = [(JobStatus.RUNNING,)] * 5 + [("FAILED", JobEnd(error="not finite"))]
    with pytest.raises(TrainingError, match="not finite"):
        follow(Cluster(answers))
    assert left == [0]
    assert caplog.text.count("slow down") == 1


def test_a_store_that_stays_away_is_an_error_that_is_tried_again(follow, away, monkeypatch):
    monkeypatch.setattr(jobs, "STORE_PATIENCE_S", 0.1)
    away(1000)
    cluster = Cluster([(JobStatus.RUNNING,)] * 1000)
    with pytest.raises(StorageError, match="slow down") as caught:
        follow(cluster)
    assert caught.value.transient
    assert not cluster.stopped


def test_a_success_whose_end_the_store_does_not_give_says_so(follow, away):
    away(1000)
    with pytest.raises(ServiceError, match=r"succeeded, but its end event .*slow down") as caught:
        follow(Cluster([(JobStatus.SUCCEEDED, DONE)]))
    assert caught.value.transient


def test_an_error_of_the_listener_is_not_one_of_the_store(follow):
    def refuse(_metrics: EpochMetrics) -> None:
        raise StorageError("artifacts: refused")

    epoch = EpochMetrics(epoch=0, step=1, lr=0.1, train_loss=1.0, train_psnr=9.0)
    with pytest.raises(StorageError, match="artifacts"):
        follow(Cluster([(JobStatus.RUNNING, epoch)]), on_progress=refuse)


def test_a_running_job_of_the_version_before_is_refused_in_one_line(follow):
    job = SimpleNamespace(
        submission_id="mirnet-run", status=JobStatus.RUNNING, metadata={"mirnet_run": "run"}
    )
    cluster = Cluster([], jobs=[job])
    remedy = "earlier version.*ray job stop --address http://head:8265 mirnet-run"
    with pytest.raises(ServiceError, match=remedy) as caught:
        follow(cluster)
    assert not caught.value.transient and "\n" not in str(caught.value)
    assert not cluster.stopped


def test_who_submits_a_moment_later_follows_the_first(follow, caplog):
    def refused() -> str:
        here = SimpleNamespace(
            submission_id="mirnet-first",
            status=JobStatus.RUNNING,
            metadata={"mirnet_run": "run", "mirnet_events": "first"},
        )
        cluster.jobs.append(here)
        raise RuntimeError("Job with submission_id mirnet-run already exists")

    def first_speaks():
        cluster.speak("run", "first")
        return JobStatus.RUNNING, LogLine(level=30, message="of the first")

    cluster = Cluster([first_speaks, KeyboardInterrupt()], submit=refused)
    with pytest.raises(KeyboardInterrupt):
        follow(cluster)
    assert cluster.stopped == ["mirnet-first"]
    assert "of the first" in caplog.text


def test_what_the_workers_log_is_read_where_the_run_was_started(follow, caplog):
    said = LogLine(level=30, message="step 7: not finite; back to step 5")
    with pytest.raises(TrainingError):
        follow(Cluster([(JobStatus.RUNNING, said), (JobStatus.STOPPED,)]))
    assert [r.message for r in caplog.records if r.levelno == 30] == [said.message]
