"""Ray sessions: a local instance that ends with us, or a cluster that we join."""

from __future__ import annotations

import contextlib
import logging
import shutil
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import ray

from mirnet.config import Settings, apply_engine_defaults
from mirnet.errors import ServiceError, first_line
from mirnet.signals import hear_again

logger = logging.getLogger(__name__)

_ENVIRONMENT = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_STATE_TRACKING": "0",
}
# this machine is not preemptible; saves one process
_LOCAL_ENVIRONMENT = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
_MIN_OBJECT_STORE = 200_000_000


@contextlib.contextmanager
def ray_session(
    settings: Settings, *, num_cpus: int | None = None, object_store_bytes: int = 0
) -> Iterator[None]:
    """Connect to ``settings.ray_address``, or start a local Ray and end it afterwards.

    A Ray that this process is already connected to is used and left running.

    Args:
        num_cpus: of a local Ray; none: those of this machine or container.
        object_store_bytes: what it has to hold.

    Raises:
        ServiceError: nobody answers at the address, which it names, or a local Ray does not start.
    """
    address = None if settings.ray_address == "in-process" else settings.ray_address
    if ray.is_initialized():
        _check_connection(address)
        yield
        return
    apply_engine_defaults(**_ENVIRONMENT)
    logging.getLogger("ray._private.authentication").setLevel(logging.ERROR)
    with _signals_restored():
        if address:
            _join(address)
            folder = None
        else:
            folder = _start(num_cpus=num_cpus, object_store_bytes=object_store_bytes)
        _end_on_signals()
        try:
            yield
        finally:
            ray.shutdown()
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)


def _check_connection(wanted: str | None) -> None:
    """A process has one Ray connection, which must be that of the settings."""
    here = ray.get_runtime_context().gcs_address
    if wanted not in (None, "auto", here):
        raise ServiceError(
            f"MIRNET_RAY_ADDRESS is {wanted}, but this process works with the Ray at {here}"
        )


def _join(address: str) -> None:
    try:
        if address != "auto":
            # Ray itself needs minutes to detect that nothing answers
            host, _, port = address.rpartition("://")[2].rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
        ray.init(address=address, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"Ray at {address} does not answer: {first_line(error)}. Is MIRNET_RAY_ADDRESS right?"
        ) from error


def _start(*, num_cpus: int | None, object_store_bytes: int) -> Path:
    """Start Ray without dashboard in a separate folder.

    The folder's name is short: unix sockets below it may have 107 characters.
    """
    apply_engine_defaults(**_LOCAL_ENVIRONMENT)
    parent = tempfile.gettempdir()
    folder = Path(tempfile.mkdtemp(prefix="mr", dir=parent if len(parent) < 30 else "/tmp"))
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=max(_MIN_OBJECT_STORE, int(object_store_bytes * 1.2)),
            logging_level=logging.WARNING,
            log_to_driver=False,  # without a dashboard Ray's own actors log a warning every second
            _temp_dir=str(folder),
        )
    except Exception as error:
        # Ray raises Exception itself where its processes do not answer in time
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        raise ServiceError(f"Ray did not start on this machine: {first_line(error)}") from error
    return folder


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def _signals_restored() -> Iterator[None]:
    """Restore the signal handlers that Ray and we replace."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_on_signals() -> None:
    """Ctrl-C and SIGTERM unwind the stack; Ray's own handlers would abort without clean-up.

    SIGTERM at a safe point; outside :func:`mirnet.signals.termination_as_exception` at once.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not hear_again():
        signal.signal(signal.SIGTERM, _terminate)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001
    raise SystemExit(128 + number)
