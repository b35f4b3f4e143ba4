"""MLflow's web pages: a server on loopback for a store without one, and the page to open."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.config import Settings, child_environment
from mirnet.errors import ServiceError, UsageError
from mirnet.guarded import guarded
from mirnet.signals import stop_if_asked
from mirnet.tracking import notes
from mirnet.tracking.client import connect, service_errors
from mirnet.tracking.runs import experiment_name

if TYPE_CHECKING:
    from mlflow.entities import Experiment

HOST, PORT = "127.0.0.1", 5000
_STARTS_WITHIN_S = 180.0
_GRACE_S = 10.0
# MLflow 3 opens with its pages for language models
_KIND = "workflowType=machine_learning"


def page_path(settings: Settings) -> str:
    """Path of the page to begin with: the evaluations, else the trainings, else all experiments.

    With the saved view *PSNR and SSIM*, where the experiment has it.

    Raises:
        ServiceError: the store cannot be reached.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        for purpose in ("evaluate", "train"):
            found = client.get_experiment_by_name(experiment_name(purpose))
            if found is not None:
                return f"/{_runs_page(found)}"
    return f"/#/experiments?{_KIND}"


def _runs_page(experiment: Experiment) -> str:
    if notes.has_view(experiment):
        return f"{notes.runs_page(experiment.experiment_id)}&{_KIND}"
    return f"#/experiments/{experiment.experiment_id}/runs?{_KIND}"


def has_server(settings: Settings) -> bool:
    """Whether the tracking URI is that of a server, which has pages of its own."""
    return settings.mlflow_uri.startswith(("http://", "https://"))


def choose_port(wanted: int | None) -> int:
    """The wanted port, or 5000, or a free one if that is taken.

    Raises:
        UsageError: the wanted port is taken.
    """
    if _is_free(wanted or PORT):
        return wanted or PORT
    if wanted is not None:
        raise UsageError(f"port {wanted} of {HOST} is taken: give another one with --port")
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def serving(settings: Settings, *, port: int, log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's server on the store of the settings, on loopback, until the block ends.

    Raises:
        ServiceError: it does not start; names its log.
    """
    command = (sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port))
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        log = stack.enter_context(log_path.open("ab"))
        process = subprocess.Popen(
            guarded(*command, "--workers", "1"),
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            # a database URL may have a password, which an argument would show to everybody
            env=child_environment(MLFLOW_BACKEND_STORE_URI=settings.mlflow_uri),
            cwd=log_path.parent,
            # Ctrl-C of the terminal is for us: we end it and say so
            start_new_session=True,
        )
        stack.callback(_stop, process)
        _wait(process, port, log_path)
        yield process


def _wait(process: subprocess.Popen[bytes], port: int, log_path: Path) -> None:
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                return
        stop_if_asked()
        time.sleep(0.2)
    raise ServiceError(f"MLflow's server did not start: see {log_path}", transient=False)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The server and its worker, which are a group."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_GRACE_S)
            return
