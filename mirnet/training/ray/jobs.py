"""Training as a job of an existing cluster, through Ray's Jobs API.

The job travels over the checkpoint store (:mod:`mirnet.training.ray.job_transfer`), the package
with the submission, so that the cluster needs our dependencies but no checkout and no shared
disk. The submission id comes from the run name: who asks again for a run that is under way
follows it.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import requests
from pyarrow import fs
from ray.exceptions import RayError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import mirnet
from mirnet.config import Settings
from mirnet.errors import ServiceError, TrainingError, UsageError
from mirnet.results import EpochMetrics, LogLine, NodeUsage, SamplePicture
from mirnet.signals import stop_if_asked
from mirnet.training.job import Job
from mirnet.training.ray.driver import (
    EPOCH_MARK,
    ERROR_MARK,
    LOG_MARK,
    PICTURE_MARK,
    RESULT,
    USAGE_MARK,
    WORKERS_MARK,
)
from mirnet.training.ray.job_transfer import send_job
from mirnet.training.request import Listener
from mirnet.training.store import open_filesystem, read_text, storage_errors, uri_of

logger = logging.getLogger(__name__)

POLL_S = 2.0
# how long a head that does not answer is asked again
PATIENCE_S = 120.0
_ALIVE = (JobStatus.PENDING, JobStatus.RUNNING)


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
    """Submit the training or follow the one under way; ends the job when interrupted or cancelled.

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
    follower = _Follower(listener, filesystem)
    with _answers(address):
        submission_id = _under_way(client, run_name)
    if submission_id is None:
        send_job(job, filesystem, f"{path}/job", packs=f"{root}/packs")
        with _answers(address):
            submission_id = _submit(client, settings, run_name)
    logger.info("following job %s on %s", submission_id, address)
    try:
        status, log = _follow(client, submission_id, follower, address)
    except Exception:
        raise
    except BaseException:  # Ctrl-C, exit, or Prefect's signal of a cancelled flow run
        client.stop_job(submission_id)
        raise
    if status != JobStatus.SUCCEEDED:
        said = _marked(log, ERROR_MARK)
        reason = said[-1] if said else f"ended as {status.value}: {_last_words(log)}"
        kind = TrainingError if said or status == JobStatus.STOPPED else ServiceError
        raise kind(f"job {submission_id} on {address}: {reason}")
    workers = _marked(log, WORKERS_MARK)
    return JobOutcome(int(workers[-1]), uri_of(filesystem, path), filesystem, path)


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


def _under_way(client: JobSubmissionClient, run_name: str) -> str | None:
    """The live job of a run, if there is one."""
    alive = [job.submission_id for job in _jobs_of(client, run_name) if job.status in _ALIVE]
    return alive[0] if alive else None


def _submit(client: JobSubmissionClient, settings: Settings, run_name: str) -> str:
    """Start a job; a second attempt of a run has a number in its id."""
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
            entrypoint=f"python -m mirnet.training.ray.driver {run_name}",
            submission_id=f"mirnet-{run_name}" + (f"-{attempt}" if attempt > 1 else ""),
            runtime_env={"env_vars": places, "py_modules": [package]},
            metadata={"mirnet_run": run_name},
        )
    except RuntimeError:
        others = _under_way(client, run_name)  # of a client that was a moment earlier
        if others is None:
            raise
        return others
    return submitted


@dataclass
class _Follower:
    """Hands on what a job's log says, each line once."""

    listener: Listener
    filesystem: fs.FileSystem
    _seen: dict[str, int] = field(default_factory=dict)

    def hear(self, log: str) -> None:
        """The log so far."""
        for line in self._fresh(log, EPOCH_MARK):
            epoch = EpochMetrics.model_validate_json(line)
            for hear in (self.listener.on_epoch, self.listener.on_progress):
                if hear is not None:
                    hear(epoch)
        for line in self._fresh(log, LOG_MARK):
            said = LogLine.model_validate_json(line)
            logger.log(said.level, "%s", said.message)
        if self.listener.on_event is None:
            return
        for line in self._fresh(log, USAGE_MARK):
            self.listener.on_event(NodeUsage.model_validate_json(line))
        for path in self._fresh(log, PICTURE_MARK):
            with storage_errors(path):
                text = read_text(self.filesystem, path)
            if text is not None:
                self.listener.on_event(SamplePicture.model_validate_json(text))

    def _fresh(self, log: str, mark: str) -> list[str]:
        lines = _marked(log, mark)
        start, self._seen[mark] = self._seen.get(mark, 0), len(lines)
        return lines[start:]


def _follow(
    client: JobSubmissionClient, submission_id: str, follower: _Follower, address: str
) -> tuple[JobStatus, str]:
    """Hand on the job's news until it ends; how it ended, and the whole log."""
    answered = time.monotonic()
    while True:
        stop_if_asked()
        try:
            with _answers(address):
                status = client.get_job_status(submission_id)
                log: str = client.get_job_logs(submission_id)
        except ServiceError as error:
            if time.monotonic() - answered > PATIENCE_S:
                raise
            logger.warning("%s Asking again.", error)
            time.sleep(POLL_S)
            continue
        answered = time.monotonic()
        follower.hear(log)
        if status not in _ALIVE:
            return status, log
        time.sleep(POLL_S)


def _marked(log: str, mark: str) -> list[str]:
    """What follows a mark, of each whole line that begins with it."""
    lines = log.splitlines(keepends=True)
    return [ln[len(mark) :].strip() for ln in lines if ln.startswith(mark) and ln.endswith("\n")]


def _last_words(log: str) -> str:
    return " ".join([line for line in log.splitlines() if line.strip()][-1:])
