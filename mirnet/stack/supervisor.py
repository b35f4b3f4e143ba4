"""Starts, monitors and restarts the services of a stack, and ends them in order.

``python -m mirnet.stack.supervisor HOME``; `mirnet stack up` runs it in the background.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from mirnet.config import apply_engine_defaults
from mirnet.errors import MirnetError, ServiceError
from mirnet.logs import protect_output
from mirnet.stack.plan import StackPaths, load_plan
from mirnet.stack.processes import MARKER, end_session, kill_session
from mirnet.stack.services import Service, services
from mirnet.stack.state import StatusBoard, held

logger = logging.getLogger(__name__)

START_S = 240.0
"""Maximum duration of a start, on a small and busy machine."""
HANG_S = 120.0
"""How long a service may fail its checks until it counts as hung."""
CALM_S = 60.0
"""A service that was healthy for this long is restarted without delay."""
LONGEST_DELAY_S = 30.0
GRACE_S = 20.0
MAX_LOG_BYTES = 50_000_000


class ServiceThread(threading.Thread):
    """Keeps one service running until stopped."""

    def __init__(
        self, service: Service, board: StatusBoard, home: StackPaths, stack_id: str
    ) -> None:
        super().__init__(name=service.name, daemon=True)
        self.service = service
        self._board = board
        self._log_path = home.logs / f"{service.name}.log"
        self._cwd = home.root
        self._stack_id = stack_id

        self._stop_asked = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        delay, restarts = 1.0, 0
        while not self._stop_asked.is_set():
            if not self._board.wait_healthy(self.service.after, timeout_s=1.0):
                self._note("waiting", message=f"for {', '.join(self.service.after)}")
                continue
            begun = time.monotonic()
            reason = self._run_once(restarts)
            if self._stop_asked.is_set():
                return
            restarts += 1
            delay = 1.0 if time.monotonic() - begun > CALM_S else min(delay * 2, LONGEST_DELAY_S)
            logger.warning("%s: %s; starting it again in %.0f s", self.name, reason, delay)
            self._note("restarting", message=reason, pid=None, restarts=restarts)
            self._stop_asked.wait(delay)

    def stop(self) -> None:
        self._stop_asked.set()
        process = self._process
        if process is not None and process.poll() is None:
            end_session(process.pid, self.service.stop_signal, grace_s=GRACE_S)
            process.wait()
        self.join()
        self._note("stopped", pid=None, message="")

    def _run_once(self, restarts: int) -> str:
        try:
            if self.service.prepare is not None:
                self.service.prepare()
            self._start(restarts)
        except (OSError, MirnetError) as error:
            return str(error)
        process = self._process
        assert process is not None
        try:
            return self._watch(process)
        finally:
            if not self._stop_asked.is_set():
                # orphaned children would hold its ports
                kill_session(process.pid)
                process.wait()

    def _start(self, restarts: int) -> None:
        owner = self.service.owner
        with self._log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.service.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/" if owner else self._cwd,
                env=self.service.env | {MARKER: self._stack_id},
                start_new_session=True,
                user=owner,
                group=owner,
                extra_groups=[] if owner else None,
                umask=0o077,
            )
        self._note("starting", pid=self._process.pid, restarts=restarts, message="")
        logger.info("%s: started as %d", self.name, self._process.pid)

    def _watch(self, process: subprocess.Popen[bytes]) -> str:
        """Returns the reason for a restart, or returns at a stop."""
        ready = False
        last_good = time.monotonic()
        while not self._stop_asked.wait(10.0 if ready else 1.0):
            code = process.poll()
            if code is not None:
                how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
                return f"ended with {how}; see {self._log_path}"
            problem = self._check(first=not ready)
            now = time.monotonic()
            if problem is None:
                ready, last_good = True, now
                self._note("healthy", message="")
            else:
                self._note("unhealthy" if ready else "starting", message=problem)
                if now - last_good > (HANG_S if ready else START_S):
                    return f"hangs: {problem}"
            self._trim_log()
        return "asked to stop"

    def _check(self, *, first: bool) -> str | None:
        problem = self.service.probe()
        if problem is None and first and self.service.setup is not None:
            try:
                self.service.setup()
            except (OSError, ServiceError) as error:
                return str(error)
        return problem

    def _trim_log(self) -> None:
        if self._log_path.stat().st_size > MAX_LOG_BYTES:
            kept = self._log_path.read_bytes()[-MAX_LOG_BYTES // 10 :]
            self._log_path.with_suffix(".1.log").write_bytes(kept)
            # writers append, so they continue at the new end
            with self._log_path.open("r+b") as log:
                log.truncate()

    def _note(self, phase: str, **fields: int | str | None) -> None:
        self._board.set(self.name, phase, **fields)  # type: ignore[arg-type]


def supervise(home: StackPaths, found: list[Service], stack_id: str, stop: threading.Event) -> None:
    """Run the services until ``stop``; then end them in reverse order."""
    board = StatusBoard(home, os.getpid(), {service.name: service.address for service in found})
    threads = [ServiceThread(service, board, home, stack_id) for service in found]
    for thread in threads:
        thread.start()
    stop.wait()
    for thread in reversed(threads):
        logger.info("%s: stopping", thread.name)
        thread.stop()


def main(arguments: list[str]) -> int:
    """Supervise the stack in the given folder until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    protect_output()
    apply_engine_defaults()
    home = StackPaths(Path(arguments[0]).resolve())
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with held(home.running, wait=False) as ours:
        if not ours:
            logger.error("another supervisor runs in %s", home.root)
            return 1
        try:
            plan, secrets = load_plan(home)
            found = services(home, plan, secrets)
        except MirnetError as error:
            logger.error("%s", error)
            return error.exit_code
        supervise(home, found, plan.stack_id, stop)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
