"""Ctrl-C for flows that bring their own servers."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def leave_foreground_group() -> None:
    """Go on in a child in a session of its own; the caller's process waits and forwards signals.

    A terminal sends Ctrl-C to every process of its foreground group. Prefect's own server would
    then be gone before the flow could report that it was stopped, and the flow would retry for
    a minute. This way only the process that runs the flow hears of it, and stops the rest in
    order. To be called before anything has started threads.
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
    """As a shell has it: 128 and the signal for a process that was killed."""
    return 128 - code if code < 0 else code
