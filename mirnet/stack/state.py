"""State of the services, written by the supervisor to a file that others read."""

from __future__ import annotations

import fcntl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mirnet.errors import UsageError
from mirnet.stack.plan import StackPaths, write_private

Phase = Literal["waiting", "starting", "healthy", "unhealthy", "restarting", "stopped"]


class ServiceState(BaseModel):
    model_config = ConfigDict(frozen=True)

    phase: Phase = "waiting"
    pid: int | None = None
    restarts: int = 0
    message: str = ""
    since: float = Field(0.0, description="seconds since the epoch of the last change of phase")
    address: str = ""


class StackState(BaseModel):
    model_config = ConfigDict(frozen=True)

    supervisor: int | None = None
    services: dict[str, ServiceState] = {}

    @property
    def healthy(self) -> bool:
        """Whether every service is healthy."""
        return bool(self.services) and all(s.phase == "healthy" for s in self.services.values())


class StatusBoard:
    """The state of a running supervisor; each change is written to the file."""

    def __init__(self, home: StackPaths, supervisor: int, addresses: dict[str, str]) -> None:
        self._home = home
        self._supervisor = supervisor
        self._changed = threading.Condition()
        self._services = {name: ServiceState(address=where) for name, where in addresses.items()}
        self._write()

    def set(self, name: str, phase: Phase, **fields: int | str | None) -> None:
        """Record a change; a changed phase gets a timestamp."""
        with self._changed:
            before = self._services[name]
            since = before.since if before.phase == phase else time.time()
            after = before.model_copy(update={"phase": phase, "since": since, **fields})
            if after != before:
                self._services[name] = after
                self._write()
                self._changed.notify_all()

    def get(self, name: str) -> ServiceState:
        with self._changed:
            return self._services[name]

    def wait_healthy(self, names: tuple[str, ...], *, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(
                lambda: all(self._services[name].phase == "healthy" for name in names), timeout_s
            )

    def _write(self) -> None:
        state = StackState(supervisor=self._supervisor, services=self._services)
        write_private(self._home.state, state.model_dump_json(indent=2))


def read_state(home: StackPaths) -> StackState:
    """The last written state; empty if there is none."""
    try:
        return StackState.model_validate_json(home.state.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return StackState()
    except ValueError as error:
        raise UsageError(f"{home.state} is not the state of a stack; remove it") from error


@contextmanager
def held(path: Path, *, wait: bool) -> Iterator[bool]:
    """Hold a lock file; yields False if another process holds it and ``wait`` is off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True


def supervisor_runs(home: StackPaths) -> bool:
    """Whether a supervisor holds its lock, which is released however it ends."""
    if not home.running.exists():
        return False
    with held(home.running, wait=False) as ours:
        return not ours
