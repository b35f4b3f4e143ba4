"""What runs on the cluster for a job: ``python -m mirnet.training.ray.driver RUN EVENTS``.

Speaks to whoever follows it through :mod:`mirnet.training.ray.job_events`, in the folder ``EVENTS``
of the run.
"""

from __future__ import annotations

import logging
import sys

from pyarrow import fs

from mirnet.config import Settings, apply_engine_defaults, load_settings
from mirnet.errors import MirnetError
from mirnet.results import LogLine
from mirnet.signals import termination_as_exception
from mirnet.storage.arrow import open_filesystem, storage_errors
from mirnet.training.ray.job_events import JobEnd, JobEventWriter
from mirnet.training.ray.job_transfer import receive_job
from mirnet.training.request import Listener

RESULT = "result"
# exit code of a driver whose last line says why: another try would end likewise
FAILED_WITH_REASON = 64


def drive(run_name: str, settings: Settings, events: JobEventWriter) -> int:
    """Train the job that lies on the store; leaves the last checkpoint under ``result``.

    Returns the number of workers.
    """
    from mirnet.training.ray.launcher import launch_training

    filesystem, root = open_filesystem(settings)
    path = f"{root}/{run_name}"
    outcome = launch_training(
        receive_job(filesystem, f"{path}/job"),
        settings=settings,
        run_name=run_name,
        listener=Listener(on_progress=events.write, on_event=events.write),
    )
    with outcome.checkpoint() as folder, storage_errors(path):
        filesystem.create_dir(f"{path}/{RESULT}", recursive=True)
        fs.copy_files(str(folder), f"{path}/{RESULT}", fs.LocalFileSystem(), filesystem)
    return outcome.num_workers


class _ToFollower(logging.Handler):
    """What is logged here, as events."""

    def __init__(self, events: JobEventWriter) -> None:
        super().__init__()
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        self._events.write(LogLine(level=record.levelno, message=record.getMessage()))


def main(run_name: str, channel: str) -> int:
    """Exit code 0, or ``FAILED_WITH_REASON``, said in one line."""
    apply_engine_defaults()
    events = None
    try:
        settings = load_settings()
        filesystem, root = open_filesystem(settings)
        events = JobEventWriter(filesystem, events_folder(f"{root}/{run_name}", channel))
        ours = logging.getLogger("mirnet")
        ours.setLevel(logging.INFO)
        ours.addHandler(_ToFollower(events))
        with termination_as_exception(stop_s=settings.stop_s):
            num_workers = drive(run_name, settings, events)
        events.write(JobEnd(num_workers=num_workers))
    except MirnetError as error:
        line = " ".join(str(error).splitlines())
        if events is not None:
            events.write(JobEnd(error=line))
        sys.stderr.write(f"\n{line}\n")  # for who cannot see the events
        return FAILED_WITH_REASON
    return 0


def events_folder(path: str, channel: str) -> str:
    """Where the events of one job of a run are; ``path`` is the run's."""
    return f"{path}/events/{channel}"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
