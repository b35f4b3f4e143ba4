"""What runs on the cluster for a submitted job: ``python -m mirnet.training.ray.driver RUN``.

Speaks to whoever follows the log in marked lines.
"""

from __future__ import annotations

import logging
import sys

from pyarrow import fs

from mirnet.config import Settings, apply_engine_defaults, load_settings
from mirnet.errors import MirnetError
from mirnet.results import EpochMetrics, LogLine, NodeUsage, SamplePicture
from mirnet.signals import termination_as_exception
from mirnet.training.ray.job_transfer import receive_job
from mirnet.training.request import Listener, TrainingEvent
from mirnet.training.store import open_filesystem, storage_errors

EPOCH_MARK, ERROR_MARK, WORKERS_MARK = "mirnet-epoch ", "mirnet-error ", "mirnet-workers "
USAGE_MARK, PICTURE_MARK, LOG_MARK = "mirnet-usage ", "mirnet-picture ", "mirnet-log "
RESULT, PICTURES = "result", "pictures"


def drive(run_name: str, settings: Settings) -> int:
    """Train the job that lies on the store; leaves the last checkpoint under ``result``.

    Returns the number of workers.
    """
    from mirnet.training.ray.launcher import launch_training

    filesystem, root = open_filesystem(settings)
    path = f"{root}/{run_name}"

    def say_event(event: TrainingEvent) -> None:
        if isinstance(event, NodeUsage):
            _say(USAGE_MARK + event.model_dump_json())
        else:
            _say(PICTURE_MARK + leave_picture(event, filesystem, f"{path}/{PICTURES}"))

    outcome = launch_training(
        receive_job(filesystem, f"{path}/job"),
        settings=settings,
        run_name=run_name,
        listener=Listener(on_progress=_say_epoch, on_event=say_event),
    )
    with outcome.checkpoint() as folder, storage_errors(path):
        filesystem.create_dir(f"{path}/{RESULT}", recursive=True)
        fs.copy_files(str(folder), f"{path}/{RESULT}", fs.LocalFileSystem(), filesystem)
    return outcome.num_workers


def leave_picture(picture: SamplePicture, filesystem: fs.FileSystem, folder: str) -> str:
    """Put a picture on the store, too large for a log; its path."""
    path = f"{folder}/{picture.epoch:05d}-{picture.pair.replace('/', '-')}.json"
    with storage_errors(path):
        filesystem.create_dir(folder, recursive=True)
        with filesystem.open_output_stream(path) as stream:
            stream.write(picture.model_dump_json().encode())
    return path


class _Saying(logging.Handler):
    """What is logged here, in marked lines as well."""

    def emit(self, record: logging.LogRecord) -> None:
        line = LogLine(level=record.levelno, message=record.getMessage())
        _say(LOG_MARK + line.model_dump_json())


def _say(line: str) -> None:
    sys.stdout.write(f"\n{line}\n")  # Ray's own output may have left a line unfinished
    sys.stdout.flush()


def _say_epoch(metrics: EpochMetrics) -> None:
    _say(EPOCH_MARK + metrics.model_dump_json())


def main(arguments: list[str]) -> int:
    """Exit code 0, or that of the error, which is said in one line."""
    apply_engine_defaults()
    ours = logging.getLogger("mirnet")
    ours.setLevel(logging.INFO)
    ours.addHandler(_Saying())
    try:
        settings = load_settings()
        with termination_as_exception(stop_s=settings.stop_s):
            _say(f"{WORKERS_MARK}{drive(arguments[0], settings)}")
    except MirnetError as error:
        _say(ERROR_MARK + " ".join(str(error).splitlines()))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
