"""Whether another process is alive, without comparing the wall clocks of two processes.

A process of this machine is identified by the boot, the PID namespace, its PID and its start in
clock ticks since the boot. A host name is no identity, since containers share it, and neither is a
start time, which changes whenever the clock is set. Of other machines we can only observe whether
they still renew what they hold.
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_PROC = Path("/proc")
# fields of /proc/PID/stat, counted from the one after the name in parentheses
_STATE, _NUM_THREADS, _START_TICKS = 0, 17, 19
_ENDED = (b"Z", b"X", b"x")
# of PIDs and ticks, which have 64 bits
_MAX_DIGITS = 20


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process of one boot of one machine.

    ``machine`` is the boot id and the PID namespace; empty if unknown. ``ticks`` is the start in
    clock ticks since the boot; 0 if unknown.
    """

    machine: str
    pid: int
    ticks: int

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """The inverse of ``str()``; none for anything else."""
        machine, *numbers = text.rsplit(" ", 2)
        if len(numbers) != 2 or not all(map(_is_number, numbers)):
            return None
        return cls(machine, int(numbers[0]), int(numbers[1]))

    def __str__(self) -> str:
        return f"{self.machine} {self.pid} {self.ticks}"

    @property
    def is_visible(self) -> bool:
        """Whether it was started in this boot and PID namespace, so that its end can be seen."""
        return bool(self.machine) and self.machine == _machine()


def this_process() -> ProcessIdentity:
    """The identity of the process that asks."""
    pid = os.getpid()
    return ProcessIdentity(_machine(), pid, _start_ticks(pid) or 0)


def has_ended(process: ProcessIdentity) -> bool:
    """Whether it was a process of this machine that has ended; False if in doubt.

    One that its parent has not waited for (a zombie) has ended.
    """
    if not process.is_visible or process.pid < 1:
        return False
    try:
        os.kill(process.pid, 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:  # it is alive, and of another user
        pass
    status = _status(process.pid)
    if status is None:
        return False
    # the first thread may end before the others
    if status[_STATE] in _ENDED and int(status[_NUM_THREADS]) <= 1:
        return True
    return bool(process.ticks) and int(status[_START_TICKS]) != process.ticks


class Unchanged:
    """For how long this process has seen a value unchanged, by its own monotonic clock.

    Args:
        max_gap_s: longer gaps between two looks count as this: in a gap this process may have been
            frozen together with the one that it observes.
        clock: monotonic, in seconds.
    """

    def __init__(self, *, max_gap_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_gap_s, self._clock = max_gap_s, clock
        self._value: object = None
        self._looked: float | None = None
        self._seconds = 0.0

    def look(self, value: object) -> float:
        """Seconds for which the value has been seen; 0 for a new one."""
        now = self._clock()
        if self._looked is None or value != self._value:
            self._value, self._seconds = value, 0.0
        else:
            self._seconds += min(now - self._looked, self._max_gap_s)
        self._looked = now
        return self._seconds


@functools.cache
def _machine() -> str:
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _is_number(text: str) -> bool:
    # int() refuses thousands of digits
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


def _start_ticks(pid: int) -> int | None:
    """None if the process is gone or cannot be seen."""
    status = _status(pid)
    return None if status is None else int(status[_START_TICKS])


def _status(pid: int) -> list[bytes] | None:
    try:
        status = (_PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return status.rpartition(b")")[2].split()
