"""Limits of the duration of tasks and flows.

Prefect's ``timeout_seconds`` raises at any point of the main thread, also in an import or a
finaliser, and elsewhere only after a call has returned. Here a thread sends SIGTERM instead, as a
cancellation does: long work stops at its next safe point (:mod:`mirnet.signals`), gives up its
lease and keeps its checkpoint; other work is interrupted by Prefect's handler. A process that has
not ended after that is ended. The run is TimedOut, or Crashed if the process had to be ended;
automations report both.
"""

from __future__ import annotations

import faulthandler
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal, ParamSpec, TypeVar

from mirnet.config import Settings, load_settings
from mirnet.errors import MirnetError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

Limit = Literal["check", "stage", "train", "enhance"]
_LOOK_S = 0.05


class OutOfTime(MirnetError, TimeoutError):
    """A task or flow took longer than its limit; names the setting. Prefect: TimedOut."""


class _Ended(BaseException):
    """Where no handler of Prefect is installed."""


def seconds_of(limit: Limit, settings: Settings) -> float:
    """The limit of one attempt of a task."""
    found: float = getattr(settings, f"{limit}_limit_s")
    return found


def limited(what: str, limit: Limit) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A function within :func:`time_limit`, for tasks; the setting is read at each call."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            settings = load_settings()
            logger.info("%s", what)
            hint = f"the limit is MIRNET_{limit.upper()}_LIMIT_S"
            with time_limit(what, seconds_of(limit, settings), stop_s=settings.stop_s, hint=hint):
                return function(*args, **kwargs)

        return call

    return decorate


@contextmanager
def flow_limit(what: str, *limits: Limit, more_s: float = 0.0) -> Iterator[None]:
    """The time limit of a flow: the sum of those of its tasks, and the wait for its turn."""
    settings = load_settings()
    seconds = sum(seconds_of(limit, settings) for limit in limits) + more_s
    if {"train", "enhance"} & set(limits):
        seconds += settings.turn_limit_s
    hint = "the sum of the limits MIRNET_*_LIMIT_S of its tasks"
    with time_limit(what, seconds, stop_s=settings.stop_s, hint=hint):
        yield


@contextmanager
def time_limit(what: str, seconds: float, *, stop_s: float, hint: str) -> Iterator[None]:
    """End the block after some seconds. Main thread only; elsewhere without effect.

    Args:
        stop_s: seconds to reach a safe point, then to clean up, then to report; after three times
            that the process ends with code 143 and the stacks of its threads on stderr.

    Raises:
        OutOfTime: the block was interrupted and has cleaned up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    clock = _Clock(what, seconds, 3 * stop_s)
    with _sigterm_raises():
        clock.start()
        try:
            try:
                yield
            finally:
                clock.finish()
        except BaseException as error:
            if not clock.expired:
                raise
            raise OutOfTime(f"{what} took longer than {seconds:g} s; {hint}") from error


class _Clock(threading.Thread):
    def __init__(self, what: str, seconds: float, grace_s: float) -> None:
        super().__init__(name=f"limit of {what}", daemon=True)
        self.expired = False
        self._what = what
        self._seconds = seconds
        self._grace_s = grace_s
        self._finished = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        if self._finished.wait(min(self._seconds, threading.TIMEOUT_MAX)):
            return
        with self._lock:
            if self._finished.is_set():
                return
            self.expired = True
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        if not self._finished.wait(self._grace_s):
            text = f"mirnet: {self._what} goes on {self._grace_s:g} s after its limit; ending\n"
            os.write(2, text.encode())
            faulthandler.dump_traceback(2)
            os._exit(128 + signal.SIGTERM)

    def finish(self) -> None:
        with self._lock:
            self._finished.set()
        if self.expired:
            time.sleep(_LOOK_S)  # a signal that is on its way arrives within the block


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    if callable(before):  # of Prefect, or of a block of mirnet.signals around this one
        yield
        return
    signal.signal(signal.SIGTERM, _raise)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _raise(_number: int, _frame: FrameType | None) -> None:
    raise _Ended
