"""Training as a job of an existing cluster, through Ray's Jobs API.

The job is sent over the checkpoint store (:mod:`mirnet.training.ray.job_transfer`), the package
with the submission, so that the cluster needs the dependencies but no checkout and no shared disk.
The submission id is derived from the run name: a second call for a running run follows it.
"""

from __future__ import annotations

import logging
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from pyarrow import fs
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import mirnet
from mirnet.config import Settings
from mirnet.errors import (
    MirnetError,
    ServiceError,
    StorageError,
    TrainingError,
    UsageError,
    first_line,
    last_line,
)
from mirnet.results import EpochMetrics
from mirnet.signals import stop_if_asked
from mirnet.storage.arrow import open_filesystem, storage_errors, uri_of
from mirnet.training.job import Job, JobOutcome
from mirnet.training.ray.driver import FAILED_WITH_REASON, RESULT, events_folder
from mirnet.training.ray.job_events import JobEnd, JobEventReader
from mirnet.training.ray.job_transfer import send_job
from mirnet.training.request import Listener

logger = logging.getLogger(__name__)

POLL_S = 2.0
# how long a request to an unreachable Ray head is retried
PATIENCE_S = 120.0
# how long reads of the store are retried while Ray answers
STORE_PATIENCE_S = 900.0
# attempts of pyarrow for one read of an event, about a second
_ATTEMPTS = 3
# maximum wait for the last event of a finished job: NFS caches a missing name for 60 s
END_PATIENCE_S = 90.0
# the head answers before the agent of a node has registered, which starts the jobs
_NO_AGENT = "No available agent to submit job"
_ALIVE = (JobStatus.PENDING, JobStatus.RUNNING)
_CHANNEL = "mirnet_events"


def run_job(
    job: Job,
    *,
    settings: Settings,
    run_name: str,
    listener: Listener,
) -> JobOutcome:
    """Submit the training or follow a running one; stops the job when interrupted or cancelled.

    The listener is called in this process, which may reach servers that the cluster cannot.

    Raises:
        UsageError: no checkpoint store that the cluster can reach is set.
        ServiceError: no answer at the address, or the job was killed or its last event cannot be
            read: the same run name resumes from its last checkpoint. Not transient: the running
            job was submitted by an earlier version.
        TrainingError: the job failed; has the job's message.
    """
    address = settings.ray_address or ""
    if settings.storage_uri is None:
        raise UsageError(
            f"training on {address} needs MIRNET_STORAGE_URI: the cluster cannot see "
            f"{settings.checkpoints}; set s3://bucket/prefix or a folder that all nodes share"
        )
    client = _connect(address)
    filesystem, root = open_filesystem(settings)
    path = f"{root}/{run_name}"
    with _answers(address):
        live = _under_way(client, run_name)
    if live is None:
        send_job(job, filesystem, f"{path}/job", packs=f"{root}/packs")
        with _answers(address):
            live = _submit(client, settings, run_name)
    channel = _channel_of(live, address)
    logger.info("following job %s on %s", live.submission_id, address)
    impatient, _ = open_filesystem(settings, attempts=_ATTEMPTS)
    reader = JobEventReader(impatient, events_folder(path, channel))
    follower = _Follower(reader, listener)
    try:
        ended = _follow(client, live.submission_id, follower, address)
        unread = follower.hear_end(ended)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, exit, or Prefect's signal of a cancelled flow run
        client.stop_job(live.submission_id)
        raise
    end = follower.end
    if ended.status == JobStatus.SUCCEEDED and end is not None and end.num_workers is not None:
        uri, checkpoint = uri_of(filesystem, path), _local_copy(filesystem, f"{path}/{RESULT}")
        return JobOutcome(end.num_workers, uri, checkpoint)
    raise _failure(
        f"job {live.submission_id} on {address}",
        ended,
        end,
        unread or f"there is none in {uri_of(filesystem, reader.folder)}",
    )


@contextmanager
def _local_copy(filesystem: fs.FileSystem, path: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder, storage_errors(path):
        fs.copy_files(path, folder, filesystem, fs.LocalFileSystem())
        yield Path(folder)


_NO_ANSWER = (ConnectionError, RuntimeError, RayError, requests.RequestException)


@contextmanager
def _answers(address: str) -> Iterator[None]:
    """Convert errors of Ray's client to ServiceError, which names the address."""
    try:
        yield
    except _NO_ANSWER as error:
        raise ServiceError(
            f"Ray at {address} does not answer: {first_line(error)}. Is MIRNET_RAY_ADDRESS right?"
        ) from error


def _connect(address: str) -> JobSubmissionClient:
    with _answers(address):
        return JobSubmissionClient(address)


def _jobs_of(client: JobSubmissionClient, run_name: str) -> list[JobDetails]:
    jobs = client.list_jobs()
    return [job for job in jobs if (job.metadata or {}).get("mirnet_run") == run_name]


@dataclass(frozen=True)
class _LiveJob:
    """A job to follow, and the folder of its events."""

    submission_id: str
    channel: str | None  # none: submitted by version 0.1, which had no events


def _under_way(client: JobSubmissionClient, run_name: str) -> _LiveJob | None:
    """The running job of a run, if any."""
    for job in _jobs_of(client, run_name):
        if job.status in _ALIVE:
            return _LiveJob(job.submission_id, job.metadata.get(_CHANNEL))
    return None


def _channel_of(live: _LiveJob, address: str) -> str:
    if live.channel is None:
        raise ServiceError(
            f"job {live.submission_id} on {address} was submitted by an earlier version of MIRNet "
            f"and cannot be followed: wait until it ends or stop it (ray job stop --address "
            f"{address} {live.submission_id}), then run the same command again",
            transient=False,
        )
    return live.channel


def _submit(client: JobSubmissionClient, settings: Settings, run_name: str) -> _LiveJob:
    """Start a job; further attempts of a run have a number in their id."""
    # not the id: a job of another cluster may have used this name and store
    channel = secrets.token_hex(8)
    attempt = len(_jobs_of(client, run_name)) + 1
    places = {
        "MIRNET_RAY_ADDRESS": "auto",
        "MIRNET_NUM_WORKERS": settings.num_workers,
        "MIRNET_MAX_RESTARTS": str(settings.max_restarts),
        "MIRNET_STORAGE_URI": str(settings.storage_uri),
    }
    if settings.s3_endpoint_url:
        places["MIRNET_S3_ENDPOINT_URL"] = settings.s3_endpoint_url
    package = str(Path(mirnet.__file__).parent)
    give_up_at = time.monotonic() + PATIENCE_S
    while True:
        try:
            submitted: str = client.submit_job(
                entrypoint=f"python -m mirnet.training.ray.driver {run_name} {channel}",
                submission_id=f"mirnet-{run_name}" + (f"-{attempt}" if attempt > 1 else ""),
                runtime_env={"env_vars": places, "py_modules": [package]},
                metadata={"mirnet_run": run_name, _CHANNEL: channel},
            )
        except RuntimeError as error:
            others = _under_way(client, run_name)  # another client submitted it at the same time
            if others is not None:
                return others
            if _NO_AGENT not in str(error) or time.monotonic() > give_up_at:
                raise
        else:
            return _LiveJob(submitted, channel)
        stop_if_asked()
        time.sleep(POLL_S)


@dataclass
class _Patience:
    """Tolerates consecutive errors of one service for ``limit_s`` from the first one."""

    limit_s: float
    _since: float | None = None

    def note(self, error: ServiceError | None) -> None:
        """Note the result of a call, None for success. Raises the error after ``limit_s``."""
        if error is None:
            self._since = None
        elif self._since is None:
            self._since = time.monotonic()
            logger.warning("%s Asking again for %.0f s.", error, self.limit_s)
        elif time.monotonic() - self._since > self.limit_s:
            raise error


@dataclass
class _Follower:
    """Passes the events of a job to the listener; ``end`` is the last event, once received."""

    events: JobEventReader
    listener: Listener
    end: JobEnd | None = None

    def hear(self) -> StorageError | None:
        """Pass on new events; returns the error if the store failed.

        Errors of the listener are raised.
        """
        while True:
            try:
                event = self.events.next()
            except StorageError as error:
                return error
            if event is None:
                return None
            if isinstance(event, JobEnd):
                self.end = event
                continue
            if isinstance(event, EpochMetrics) and self.listener.on_epoch is not None:
                self.listener.on_epoch(event)
            self.listener.hear(event)

    def hear_end(self, ended: JobDetails) -> StorageError | None:
        """The same after the job has ended; waits ``END_PATIENCE_S`` for a missing last event."""
        # other jobs were killed or stopped and have no last event
        owed = ended.status == JobStatus.SUCCEEDED or ended.driver_exit_code == FAILED_WITH_REASON
        deadline = time.monotonic() + END_PATIENCE_S
        while True:
            stop_if_asked()
            error = self.hear()
            if self.end is not None or not (owed or error) or time.monotonic() > deadline:
                return error
            time.sleep(POLL_S)


def _follow(
    client: JobSubmissionClient, submission_id: str, follower: _Follower, address: str
) -> JobDetails:
    """Pass on the job's events until Ray reports that it has ended."""
    head, store = _Patience(PATIENCE_S), _Patience(STORE_PATIENCE_S)
    while True:
        stop_if_asked()
        try:
            with _answers(address):
                job = client.get_job_info(submission_id)
        except ServiceError as error:
            head.note(error)
        else:
            head.note(None)
            if job.status not in _ALIVE:
                return job
            store.note(follower.hear())
        time.sleep(POLL_S)


def _failure(job: str, ended: JobDetails, end: JobEnd | None, unread: object) -> MirnetError:
    if end is not None and end.error:
        return TrainingError(f"{job}: {end.error}")
    if ended.status == JobStatus.SUCCEEDED:
        return ServiceError(
            f"{job} succeeded, but its end event cannot be read: {unread}. The same run name goes "
            "on from its last checkpoint"
        )
    final = ended.driver_exit_code == FAILED_WITH_REASON or ended.status == JobStatus.STOPPED
    kind = TrainingError if final else ServiceError
    return kind(f"{job}: ended as {ended.status.value}: {last_line(ended.message or '')}")
