"""``up``, ``down``, ``status`` and ``logs`` of the stack on this machine."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import psutil

from mirnet import extras
from mirnet.config import child_environment
from mirnet.errors import ServiceError, UsageError
from mirnet.stack import postgres
from mirnet.stack.plan import StackPaths, load_plan, make_plan
from mirnet.stack.processes import MARKER, end, of_stack
from mirnet.stack.services import client_environment, services
from mirnet.stack.state import StackState, held, read_state, supervisor_runs
from mirnet.stack.supervisor import supervise

logger = logging.getLogger(__name__)

StackProgress = Callable[[StackState], None]


def up(
    home: StackPaths,
    *,
    project: Path,
    timeout_s: float,
    progress: StackProgress,
    database: Literal["postgres", "sqlite"] | None = None,
) -> StackState:
    """Start what is not running and wait until every service is healthy. Idempotent.

    Raises:
        ServiceError: a service is not healthy in time; what was started is ended again.
        ExtraMissing: a package of the ``stack`` extra is missing.
    """
    with held(home.lock, wait=True):
        started = not supervisor_runs(home)
        if started:
            _start(home, project, database)
        try:
            return _wait_until_healthy(home, timeout_s, progress)
        except (ServiceError, KeyboardInterrupt):
            if started:
                _stop(home)
            raise


def down(home: StackPaths, *, purge: bool = False) -> tuple[str, ...]:
    """End every process of the stack, supervised or not. ``purge`` removes its data too.

    Returns:
        The services that it ended, healthy or not; of a stack whose services are not known, each
        process as ``process NUMBER``.

    Raises:
        ServiceError: there is no stack in the folder; names it.
    """
    if not home.plan.is_file():
        raise ServiceError(
            f"no stack in {home.root}: nothing was stopped; name its folder with --home",
            transient=False,
        )
    with held(home.lock, wait=True):
        ended = _stop(home)
        if purge:
            shutil.rmtree(home.root)
    return ended


def status(home: StackPaths) -> StackState:
    """The last state written by the supervisor; all stopped if there is no supervisor."""
    state = read_state(home)
    if supervisor_runs(home):
        return state
    stopped = {
        name: service.model_copy(update={"phase": "stopped", "pid": None})
        for name, service in state.services.items()
    }
    return StackState(supervisor=None, services=stopped)


@contextmanager
def serving(home: StackPaths, names: Sequence[str], *, timeout_s: float = 240) -> Iterator[None]:
    """Some services of a stack, started for this block unless the whole stack runs.

    The caller holds ``home.lock``.

    Raises:
        UsageError: there is no stack here.
        ServiceError: one is not healthy in time.
    """
    if supervisor_runs(home):
        yield
        return
    before, _ = load_plan(home)
    _sweep(home)
    plan = make_plan(home, project=before.project, database=before.database)
    found = [s for s in services(home, plan, load_plan(home)[1]) if s.name in names]
    stop = threading.Event()
    arguments = (home, found, plan.stack_id, stop)
    # `status` looks at this lock for a moment; a supervisor cannot: the caller has the other
    with held(home.running, wait=True):
        thread = threading.Thread(target=supervise, args=arguments, name="supervisor")
        home.state.unlink(missing_ok=True)
        thread.start()
        try:
            _wait_until_healthy(home, timeout_s, lambda _: None)
            yield
        finally:
            stop.set()
            thread.join()
            shutil.rmtree(plan.run_dir, ignore_errors=True)


def log_path(home: StackPaths, service: str) -> Path:
    """The log of a service.

    Raises:
        UsageError: no such service, or it has not started yet; names those that have.
    """
    path = home.logs / f"{service}.log"
    if not path.is_file():
        existing = ", ".join(sorted(p.stem for p in home.logs.glob("*.log"))) or "none yet"
        raise UsageError(f"no log of {service!r} in {home.logs}; there are: {existing}")
    return path


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a text file, read from the end."""
    with path.open("rb") as file:
        file.seek(0, 2)
        file.seek(max(0, file.tell() - 400 * count))
        return file.read().decode(errors="replace").splitlines()[-count:]


def _start(home: StackPaths, project: Path, database: Literal["postgres", "sqlite"] | None) -> None:
    if home.restoring.exists():
        raise UsageError(f"a restore of {home.root} did not finish: repeat it")
    if home.plan.is_file():
        _sweep(home)  # processes left by a killed supervisor
    extras.need("stack", "flask_wtf", "psycopg2")
    extras.program("stack", "weed")
    plan = make_plan(home, project=project, database=database or _best_database(home))
    home.state.unlink(missing_ok=True)
    with (home.logs / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "mirnet.stack.supervisor", str(home.root)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=home.root,
            env=child_environment() | {MARKER: plan.stack_id},
            start_new_session=True,
        )


def _best_database(home: StackPaths) -> Literal["postgres", "sqlite"]:
    if postgres.find_programs() is None:
        logger.warning("PostgreSQL is not installed: Prefect and MLflow share this stack on SQLite")
        return "sqlite"
    try:
        postgres.owner_for(home.folder("postgres"))
    except ServiceError as error:
        logger.warning("%s: Prefect and MLflow run on SQLite", error)
        return "sqlite"
    return "postgres"


def _wait_until_healthy(home: StackPaths, timeout_s: float, progress: StackProgress) -> StackState:
    started = time.monotonic()
    while time.monotonic() - started < timeout_s:
        state = status(home)
        progress(state)
        if state.healthy:
            return state
        if not supervisor_runs(home) and time.monotonic() - started > 15:
            lines = last_lines(log_path(home, "supervisor"), 1)
            raise ServiceError(f"the supervisor ended: {lines[-1] if lines else 'no log'}")
        time.sleep(0.5)
    services = status(home).services
    name, service = next((n, s) for n, s in services.items() if s.phase != "healthy")
    raise ServiceError(
        f"{name} is {service.phase} after {timeout_s:.0f} s: {service.message}; "
        f"see {home.logs / f'{name}.log'}"
    )


def _stop(home: StackPaths) -> tuple[str, ...]:
    """End the supervisor and whatever is left; returns what ended, as :func:`down` does."""
    state = read_state(home)
    ended = _running(home, state)
    if supervisor_runs(home) and state.supervisor is not None:
        try:
            supervisor = psutil.Process(state.supervisor)
            supervisor.terminate()
            supervisor.wait(timeout=120)
        except (psutil.NoSuchProcess, psutil.TimeoutExpired) as error:
            logger.warning("supervisor %s: %s", state.supervisor, error)
    _sweep(home)
    shutil.rmtree(load_plan(home)[0].run_dir, ignore_errors=True)
    return ended


def _running(home: StackPaths, state: StackState) -> tuple[str, ...]:
    """Services that have a process, whether or not a supervisor watches it; else the processes."""
    pids = {s.pid: name for name, s in state.services.items() if s.pid is not None}
    found = [
        p.pid for p in of_stack(load_plan(home)[0].stack_id, pids) if p.pid != state.supervisor
    ]
    services = tuple(name for pid, name in pids.items() if pid in found)
    return services or tuple(f"process {pid}" for pid in found)


def _sweep(home: StackPaths) -> None:
    plan, _ = load_plan(home)
    sessions = [s.pid for s in read_state(home).services.values() if s.pid is not None]
    left = of_stack(plan.stack_id, sessions)
    if left:
        logger.warning("ending %d processes without a supervisor", len(left))
        end(left, grace_s=15)


def environment(home: StackPaths) -> dict[str, str]:
    """Variables of a shell that uses the stack. They contain secrets."""
    return client_environment(home, *load_plan(home))
