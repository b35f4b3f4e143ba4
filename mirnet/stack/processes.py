"""Finding and ending the processes of a stack, also those without a supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

# In the environment of every process of a stack, so that a flow run in its own session, or a
# server whose supervisor was killed, is still found.
MARKER = "MIRNET_STACK_PROCESS"


def of_session(leader: int) -> list[psutil.Process]:
    """A service and its children: all processes of its session."""
    return [process for process in psutil.process_iter() if _session(process) == leader]


def of_stack(stack_id: str, sessions: Iterable[int] = ()) -> list[psutil.Process]:
    """Every process that carries the marker of this stack or belongs to a known session.

    Sessions count only while one of their processes has the marker: ids are reused.
    """
    marked = [p for p in psutil.process_iter() if _marker(p) == stack_id]
    confirmed = set(sessions).intersection(map(_session, marked))
    pids = {p.pid for p in marked}
    more = [p for leader in confirmed for p in of_session(leader) if p.pid not in pids]
    return [p for p in (*marked, *more) if p.pid != os.getpid()]


def end(processes: list[psutil.Process], *, grace_s: float) -> None:
    """SIGTERM, wait, then SIGKILL."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    _, alive = psutil.wait_procs(processes, timeout=grace_s)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=10)


def end_session(leader: int, first: signal.Signals, *, grace_s: float) -> None:
    """End a service: its leader by its own signal, then the rest of the session."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(leader, first)
    deadline = time.monotonic() + grace_s
    while of_session(leader) and time.monotonic() < deadline:
        time.sleep(0.2)
    kill_session(leader)


def kill_session(leader: int) -> None:
    """SIGKILL to the remaining processes of a session."""
    left = of_session(leader)
    for process in left:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(left, timeout=10)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return


def _marker(process: psutil.Process) -> str | None:
    try:
        found: str | None = process.environ().get(MARKER)
    except (psutil.Error, OSError):
        return None
    return found


def _session(process: psutil.Process) -> int | None:
    """None if it has ended, as a zombie too."""
    try:
        return None if process.status() == psutil.STATUS_ZOMBIE else os.getsid(process.pid)
    except (ProcessLookupError, PermissionError, psutil.Error):
        return None
