"""What the client of a submitted job does when it, the job or the cluster's head goes away."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
import requests
from prefect.exceptions import TerminationSignal
from ray.job_submission import JobStatus

from mirnet.errors import MirnetError, ServiceError, TrainingError
from mirnet.results import LogLine
from mirnet.training.ray import jobs
from mirnet.training.ray.driver import ERROR_MARK, LOG_MARK, WORKERS_MARK

DONE = f"{WORKERS_MARK}2\n"


@dataclass
class Cluster:
    """Stands in for Ray's client: each answer is a status with the log so far, or an error."""

    answers: list[object]
    stopped: list[str] = field(default_factory=list)
    jobs: list[SimpleNamespace] = field(default_factory=list)
    submit: Callable[[], str] = lambda: "mirnet-run"
    _log: str = ""

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def submit_job(self, **_: object) -> str:
        return self.submit()

    def get_job_status(self, _id: str) -> JobStatus:
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        if callable(answer):
            answer = answer()
        status, self._log = answer
        return status

    def get_job_logs(self, _id: str) -> str:
        return self._log

    def stop_job(self, job: str) -> None:
        self.stopped.append(job)


@pytest.fixture
def follow(train, small_params, settings, tmp_path, monkeypatch):
    """Train on a cluster that answers so."""
    place = settings.model_copy(
        update={"ray_address": "http://head:8265", "storage_uri": str(tmp_path / "store")}
    )
    monkeypatch.setattr(jobs, "POLL_S", 0.01)

    def run(cluster: Cluster) -> object:
        monkeypatch.setattr(jobs, "JobSubmissionClient", lambda _address: cluster)
        return train(small_params(), place)

    return run


def test_a_cancelled_flow_run_ends_its_job(follow):
    """Prefect turns SIGTERM into an exception that is no Exception."""

    def terminate():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    def cancel(*_: object):
        raise TerminationSignal(signal.SIGTERM)

    cluster = Cluster([(JobStatus.RUNNING, ""), terminate])
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        with pytest.raises(TerminationSignal):
            follow(cluster)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert cluster.stopped == ["mirnet-run"]


def test_a_head_that_is_away_for_a_while_is_asked_again(follow, caplog):
    away = requests.ConnectionError("refused")
    cluster = Cluster([(JobStatus.RUNNING, ""), away, RuntimeError("502"), ("SUCCEEDED", DONE)])
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
    ("status", "log", "kind"),
    [
        (JobStatus.FAILED, "Ray's own words\nKilled\n", ServiceError),
        (JobStatus.FAILED, f"{ERROR_MARK}step 3: not finite\n", TrainingError),
        (JobStatus.STOPPED, "", TrainingError),
    ],
)
def test_only_a_job_that_died_without_a_word_is_worth_another_try(follow, status, log, kind):
    with pytest.raises(kind, match=r"job mirnet-run on http://head:8265: ") as caught:
        follow(Cluster([(status, log)]))
    assert type(caught.value) is kind


def test_who_submits_a_moment_later_follows_the_first(follow):
    def refused() -> str:
        here = SimpleNamespace(
            submission_id="mirnet-first", status=JobStatus.RUNNING, metadata={"mirnet_run": "run"}
        )
        cluster.jobs.append(here)
        raise RuntimeError("Job with submission_id mirnet-run already exists")

    cluster = Cluster([KeyboardInterrupt()], submit=refused)
    with pytest.raises(KeyboardInterrupt):
        follow(cluster)
    assert cluster.stopped == ["mirnet-first"]


def test_what_the_workers_log_is_read_where_the_run_was_started(follow, caplog):
    said = LogLine(level=30, message="step 7: not finite; back to step 5")
    line = f"{LOG_MARK}{said.model_dump_json()}\n"
    with pytest.raises(TrainingError):
        follow(Cluster([(JobStatus.RUNNING, line), (JobStatus.STOPPED, line)]))
    assert [r.message for r in caplog.records if r.levelno == 30] == [said.message]
