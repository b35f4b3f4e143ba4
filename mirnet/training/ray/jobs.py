"""Training as a job of an existing cluster, through Ray's Jobs API.

The job travels over the checkpoint store (:mod:`mirnet.training.ray.job_transfer`), the package
with the submission, so that the cluster needs our dependencies but no checkout and no shared
disk. The submission id comes from the run name: who asks again for a run that is under way
follows it.
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
from mirnet.errors import ServiceError, TrainingError, UsageError
from mirnet.results import EpochMetrics, LogLine
from mirnet.signals import stop_if_asked
from mirnet.storage.arrow import open_filesystem, storage_errors, uri_of
from mirnet.training.job import Job
from mirnet.training.ray.driver import FAILED_WITH_REASON, RESULT, events_folder
from mirnet.training.ray.job_events import JobEnd, JobEvent, JobEventReader
from mirnet.training.ray.job_transfer import send_job
from mirnet.training.request import Listener

logger = logging.getLogger(__name__)

POLL_S = 2.0
# how long a head that does not answer is asked again
PATIENCE_S = 120.0
_ALIVE = (JobStatus.PENDING, JobStatus.RUNNING)
_CHANNEL = "mirnet_events"


@dataclass(frozen=True)
class JobOutcome:
    """A job that succeeded."""

    num_workers: int
    checkpoint_uri: str
    filesystem: fs.FileSystem
    path: str

    @contextmanager
    def checkpoint(self) -> Iterator[Path]:
        """A local copy of the last checkpoint."""
        with tempfile.TemporaryDirectory() as folder, storage_errors(self.path):
            fs.copy_files(f"{self.path}/{RESULT}", folder, self.filesystem, fs.LocalFileSystem())
            yield Path(folder)


def run_job(
    job: Job,
    *,
    settings: Settings,
    run_name: str,
    listener: Listener,
) -> JobOutcome:
    """Submit the training or follow a running one; ends the job when interrupted or cancelled.

    Both functions are called here, which may reach a tracking server that the cluster may not.

    Raises:
        UsageError: no checkpoint store that the cluster can see is set.
        ServiceError: nobody answers at the address, or the job died without a word; the same run
            name goes on from its last checkpoint.
        TrainingError: the job failed, with its own words.
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
    logger.info("following job %s on %s", live.submission_id, address)
    events = JobEventReader(filesystem, events_folder(path, live.channel))
    try:
        ended, end = _follow(client, live.submission_id, events, listener, address)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, exit, or Prefect's signal of a cancelled flow run
        client.stop_job(live.submission_id)
        raise
    if ended.status == JobStatus.SUCCEEDED and end.num_workers is not None:
        return JobOutcome(end.num_workers, uri_of(filesystem, path), filesystem, path)
    reason = end.error or f"ended as {ended.status.value}: {_last_words(ended.message or '')}"
    final = end.error or ended.driver_exit_code == FAILED_WITH_REASON
    kind = TrainingError if final or ended.status == JobStatus.STOPPED else ServiceError
    raise kind(f"job {live.submission_id} on {address}: {reason}")


_NO_ANSWER = (ConnectionError, RuntimeError, RayError, requests.RequestException)


@contextmanager
def _answers(address: str) -> Iterator[None]:
    """What Ray's client raises, as ServiceError that names the address."""
    try:
        yield
    except _NO_ANSWER as error:
        reason = (str(error).splitlines() or [repr(error)])[0]
        raise ServiceError(
            f"Ray at {address} does not answer: {reason}. Is MIRNET_RAY_ADDRESS right?"
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
    channel: str


def _under_way(client: JobSubmissionClient, run_name: str) -> _LiveJob | None:
    """The running job of a run, if any."""
    for job in _jobs_of(client, run_name):
        if job.status in _ALIVE:
            return _LiveJob(job.submission_id, job.metadata.get(_CHANNEL, job.submission_id))
    return None


def _submit(client: JobSubmissionClient, settings: Settings, run_name: str) -> _LiveJob:
    """Start a job; further attempts of a run have a number in their id."""
    # not the id: another cluster may have had a job of this name, with this store
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
    try:
        submitted: str = client.submit_job(
            entrypoint=f"python -m mirnet.training.ray.driver {run_name} {channel}",
            submission_id=f"mirnet-{run_name}" + (f"-{attempt}" if attempt > 1 else ""),
            runtime_env={"env_vars": places, "py_modules": [package]},
            metadata={"mirnet_run": run_name, _CHANNEL: channel},
        )
    except RuntimeError:
        others = _under_way(client, run_name)  # of a client that was a moment earlier
        if others is None:
            raise
        return others
    return _LiveJob(submitted, channel)


def _follow(
    client: JobSubmissionClient,
    submission_id: str,
    events: JobEventReader,
    listener: Listener,
    address: str,
) -> tuple[JobDetails, JobEnd]:
    """Hand on the job's events until it ends; how it ended by Ray's word and by its own."""
    end = JobEnd()
    answered = time.monotonic()
    while True:
        stop_if_asked()
        try:
            with _answers(address):
                job = client.get_job_info(submission_id)
            fresh = events.fresh()  # after the status: of a job that has ended, all of them
        except ServiceError as error:
            if time.monotonic() - answered > PATIENCE_S:
                raise
            logger.warning("%s Asking again.", error)
            time.sleep(POLL_S)
            continue
        answered = time.monotonic()
        for event in fresh:
            if isinstance(event, JobEnd):
                end = event
            else:
                _hand_on(event, listener)
        if job.status not in _ALIVE:
            return job, end
        time.sleep(POLL_S)


def _hand_on(event: JobEvent, listener: Listener) -> None:
    if isinstance(event, EpochMetrics):
        for hear in (listener.on_epoch, listener.on_progress):
            if hear is not None:
                hear(event)
    elif isinstance(event, LogLine):
        logger.log(event.level, "%s", event.message)
    elif not isinstance(event, JobEnd) and listener.on_event is not None:
        listener.on_event(event)


def _last_words(text: str) -> str:
    return " ".join([line for line in text.splitlines() if line.strip()][-1:])
