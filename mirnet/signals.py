"""SIGTERM sets a flag that is checked at safe points; a process that reaches none is ended.

A signal handler that raises may do so anywhere: in a weakref callback Python swallows the
exception, in the import system it leaves a lock held for ever. So ours only sets a flag. Long work
calls :func:`advance` at safe points, and waits call :func:`stop_if_asked`; both raise there. A
watchdog thread ends the process if no safe point is reached in time.

Optionally the exception is raised elsewhere after a while, if no frame of the stack is in code
that must not be interrupted.
"""

from __future__ import annotations

import _weakrefset
import faulthandler
import logging
import math
import os
import select
import signal
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")
STOP_S = 25.0
"""To the first safe point, and from there to the end; below the 30 s of Kubernetes."""
_AGAIN_S = 0.1
_FINALISERS = {"__del__", "__enter__", "__exit__"}
# code that holds locks, or that is called where Python swallows exceptions
_MODULES = (threading, weakref, _weakrefset, logging, tempfile)
_FRAGILE = ("<frozen importlib", *(module.__file__ for module in _MODULES if module.__file__))


@dataclass
class _Block:
    before: Callable[[int, FrameType | None], Any] | None
    stop_s: float
    raise_after_s: float
    asked: bool = False
    stuck: bool = False
    raising: bool = False
    pid: int = field(default_factory=os.getpid)
    thread: int = field(default_factory=threading.get_ident)
    pipe: tuple[int, int] = field(default_factory=os.pipe)


_block: _Block | None = None
_advanced = time.monotonic()


@contextmanager
def termination_as_exception(
    *, stop_s: float = STOP_S, raise_after_s: float = math.inf
) -> Iterator[None]:
    """SIGTERM ends the block at a safe point, so that it can clean up.

    There the previous handler is called, such as Prefect's, which raises its own exception; without
    one, SystemExit is raised with code 143. No effect outside of the main thread, within another
    such block, and if SIGTERM is ignored.

    Args:
        stop_s: after this many seconds without a safe point the process ends, with code 143 and
            the stacks of its threads on stderr; likewise this long after a safe point, if the
            block has not ended.
        raise_after_s: after this many seconds without a safe point the exception is raised
            wherever the main thread is, except in an import, a finaliser or with a lock held.
    """
    global _block
    before = signal.getsignal(signal.SIGTERM)
    main = threading.current_thread() is threading.main_thread()
    if not main or _block is not None or before in (signal.SIG_IGN, None):
        yield
        return
    block = _Block(before if callable(before) else None, stop_s, raise_after_s)
    watchdog = threading.Thread(target=_watch, args=(block,), name="mirnet-stop", daemon=True)
    watchdog.start()
    _block = block
    signal.signal(signal.SIGTERM, _note)
    try:
        yield
        stop_if_asked()
    finally:
        signal.signal(signal.SIGTERM, before)
        _block = None
        os.write(block.pipe[1], b"e")
        watchdog.join()
        for end in block.pipe:
            os.close(end)
        if block.asked:  # received after the last safe point: passed to the previous handler
            signal.raise_signal(signal.SIGTERM)


def stop_if_asked() -> None:
    """Raise if SIGTERM was received: for waits that poll.

    Raises:
        SystemExit: code 143; or the exception of the previous handler.
    """
    block = _block
    if block is None or not block.asked or threading.get_ident() != block.thread:
        return
    block.asked = block.raising = False  # cleanup after the first exception is not interrupted
    os.write(block.pipe[1], b"h")
    if block.before is None:
        raise SystemExit(128 + signal.SIGTERM)
    block.before(signal.SIGTERM, None)


def advance() -> None:
    """Report progress (for :func:`idle_s`); a safe point.

    Raises:
        SystemExit: as :func:`stop_if_asked`.
    """
    global _advanced
    _advanced = time.monotonic()
    stop_if_asked()


def advancing(items: Iterable[T]) -> Iterator[T]:
    """The items, with :func:`advance` at each: for long iterations such as a listing.

    Raises:
        SystemExit: as :func:`stop_if_asked`.
    """
    for item in items:
        advance()
        yield item


def idle_s() -> float:
    """Seconds since the last progress anywhere in this process."""
    return time.monotonic() - _advanced


def advanced_at() -> float:
    """When the last progress was, by the monotonic clock: another value after each."""
    return _advanced


def ask_to_stop() -> None:
    """As SIGTERM, from any thread: for a watchdog that sees no progress."""
    block = _block
    if block is not None:
        block.stuck = True
        _ask(block)


def was_stuck() -> bool:
    """Whether :func:`ask_to_stop` was called in the present block."""
    return _block is not None and _block.stuck


def hear_again() -> bool:
    """Restore our handler if a library has replaced it; whether there is a block for it."""
    if _block is None or threading.get_ident() != _block.thread:
        return False
    signal.signal(signal.SIGTERM, _note)
    return True


def _note(number: int, frame: FrameType | None) -> None:
    block = _block
    if block is None or block.pid != os.getpid():
        # a child process forked with our handler
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        return
    if not block.raising:
        _ask(block)
    elif _may_be_broken_off(frame):
        stop_if_asked()


def _may_be_broken_off(frame: FrameType | None) -> bool:
    while frame is not None:
        code = frame.f_code
        if code.co_name in _FINALISERS or code.co_filename.startswith(_FRAGILE):
            return False
        frame = frame.f_back
    return True


def _ask(block: _Block) -> None:
    # takes no lock: whatever was interrupted may hold it
    block.asked = True
    os.write(block.pipe[1], b"a")


def _watch(block: _Block) -> None:
    end = strike = math.inf
    while True:
        left = min(end, strike) - time.monotonic()
        wait_s = None if left == math.inf else max(left, 0.0)
        if select.select([block.pipe[0]], [], [], wait_s)[0]:
            for event in os.read(block.pipe[0], 64):
                if event == ord("e"):
                    return
                if event == ord("a") and end == math.inf:
                    end = time.monotonic() + block.stop_s
                    strike = time.monotonic() + block.raise_after_s
                if event == ord("h"):
                    end, strike = time.monotonic() + block.stop_s, math.inf
        elif time.monotonic() >= end:
            _end(block)
        else:
            block.raising = True
            signal.pthread_kill(block.thread, signal.SIGTERM)
            strike = time.monotonic() + _AGAIN_S


def _end(block: _Block) -> None:
    text = f"mirnet: still at work {block.stop_s:g} s after SIGTERM; ending the process\n"
    os.write(2, text.encode())
    faulthandler.dump_traceback(2)
    os._exit(128 + signal.SIGTERM)
