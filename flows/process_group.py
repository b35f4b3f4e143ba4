"""Ctrl-C handling for flows that start their own servers."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_foreground_group() -> None:
    """Continue in a child in its own session; the caller's process waits and forwards signals.

    A terminal sends Ctrl-C to every process of its foreground group. Prefect's own server would
    then be gone before the flow could report that it was stopped, and the flow would retry for
    a minute. This way only the process that runs the flow gets the signal, and stops the others
    in order. Call it before any thread is started.
    """
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        return

    def forward(number: int, _frame: FrameType | None) -> None:
        os.kill(child, number)

    for number in _FORWARDED:
        signal.signal(number, forward)
    _, status = os.waitpid(child, 0)
    os._exit(exit_code(os.waitstatus_to_exitcode(status)))


def exit_code(code: int) -> int:
    """As in a shell: 128 plus the signal for a killed process."""
    return 128 - code if code < 0 else code
