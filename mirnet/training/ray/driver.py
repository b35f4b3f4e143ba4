"""The entry point of a job on a cluster: ``python -m mirnet.training.ray.driver RUN EVENTS``.

Sends events to its followers (:mod:`mirnet.training.ray.job_events`) in the folder ``EVENTS`` of
the run.
"""

from __future__ import annotations

import logging
import sys

from pyarrow import fs

from mirnet.config import Settings, apply_engine_defaults, load_settings
from mirnet.errors import MirnetError, StorageError
from mirnet.logs import protect_output
from mirnet.signals import termination_as_exception
from mirnet.storage.arrow import open_filesystem, storage_errors
from mirnet.training.ray.job_events import JobEnd, JobEventWriter
from mirnet.training.ray.job_transfer import receive_job
from mirnet.training.request import Listener, LogForwarder

RESULT = "result"
# exit code of a permanent failure; the last line on stderr is its reason
FAILED_WITH_REASON = 64
# how long writing of the last events is retried
FLUSH_S = 60.0

logger = logging.getLogger("mirnet")  # __name__ is __main__ here


def drive(run_name: str, settings: Settings, events: JobEventWriter) -> int:
    """Train the job on the store; writes the last checkpoint to ``result``.

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
    with outcome.checkpoint as folder, storage_errors(path):
        filesystem.create_dir(f"{path}/{RESULT}", recursive=True)
        fs.copy_files(str(folder), f"{path}/{RESULT}", fs.LocalFileSystem(), filesystem)
    return outcome.num_workers


def main(run_name: str, channel: str) -> int:
    """Run the job and report its end in an event, and a failure in the last line on stderr too.

    Returns:
        Exit code: 0; ``FAILED_WITH_REASON``; 1 if the training succeeded, but not all events could
        be written.
    """
    apply_engine_defaults()
    protect_output()
    try:
        settings = load_settings()
        filesystem, root = open_filesystem(settings)
    except MirnetError as error:
        _say(error)
        return FAILED_WITH_REASON
    path = f"{root}/{run_name}"
    events = JobEventWriter(filesystem, events_folder(path, channel))
    logger.setLevel(logging.INFO)
    logger.addHandler(LogForwarder(events.write))
    with termination_as_exception(stop_s=settings.stop_s):
        delete_earlier_events(filesystem, path, channel)
        return _run(run_name, settings, events)


def _run(run_name: str, settings: Settings, events: JobEventWriter) -> int:
    failure: MirnetError | None = None
    try:
        events.write(JobEnd(num_workers=drive(run_name, settings, events)))
    except MirnetError as error:
        failure = error
        events.write(JobEnd(error=str(error)))
    try:
        events.flush(FLUSH_S)
    except StorageError as error:
        _say(error)
        if failure is None:
            return 1
    if failure is None:
        return 0
    _say(failure)
    return FAILED_WITH_REASON


def _say(error: MirnetError) -> None:
    sys.stderr.write(f"\n{error}\n")  # for clients that cannot read the events


def events_folder(path: str, channel: str) -> str:
    """Folder of the events of one job; ``path`` is that of the run."""
    return f"{path}/events/{channel}"


def delete_earlier_events(filesystem: fs.FileSystem, path: str, channel: str) -> None:
    """Delete the events of earlier jobs of the run; a failure is only logged."""
    folder = fs.FileSelector(f"{path}/events", allow_not_found=True)
    try:
        with storage_errors(folder.base_dir):
            for info in filesystem.get_file_info(folder):
                if info.type == fs.FileType.Directory and info.base_name != channel:
                    filesystem.delete_dir(info.path)
    except StorageError as error:
        logger.warning("the events of earlier jobs of this run are left: %s", error)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
