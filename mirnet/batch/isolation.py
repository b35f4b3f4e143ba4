"""A long-lived child process for work that may kill its process, fill the memory or never end.

It answers one message at a time. Its death costs the message at hand; the next one starts another
child. Memory is limited by what is resident: torch and CUDA reserve far more address space than
they use, so ``RLIMIT_AS`` would refuse harmless images. The parent looks every ``_LOOK_S`` and ends
a child that has more, and the kernel, if it runs out of memory first, chooses the child. Time is
limited by progress (:func:`mirnet.signals.advance`): a large image may take hours, a tile may not.

Answers are JSON and bytes and are never unpickled, because a file may have taken over the code
that read it.
"""

from __future__ import annotations

import faulthandler
import json
import os
import pickle
import queue
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

from mirnet.errors import DeviceBroken, ServiceError
from mirnet.images.limits import free_memory
from mirnet.signals import advance, idle_s, stop_if_asked

_LOOK_S = 0.05
# a model may be read over the network, and torch is imported
_START_S = 900.0
# the child ends itself, with its stack; the parent does so for one that is stopped
_GRACE_S = 5.0
# the rest is for the parent, which uploads meanwhile, and for Ray, which ends workers at 95 %
_SHARE_OF_FREE = 0.7
_READY, _FAILED, _STOPPED, _PROGRESS = "ready", "failed", "stopped", "progress"
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]);" + (
    f"from {__name__} import serve; serve(int(sys.argv[2]), float(sys.argv[3]))"
)


@dataclass(frozen=True)
class Message:
    """``facts``: of JSON. ``parts``: e.g. the bytes of a file."""

    facts: dict[str, Any]
    parts: tuple[bytes, ...] = ()

    def dump(self) -> bytes:
        """As bytes."""
        head = json.dumps([self.facts, [len(part) for part in self.parts]]).encode()
        return b"".join([struct.pack("<Q", len(head)), head, *self.parts])

    @classmethod
    def load(cls, data: bytes) -> Message:
        """The inverse of :meth:`dump`.

        Raises:
            ValueError: it was not written by :meth:`dump`.
        """
        view, parts = memoryview(data), []
        end = 8 + int.from_bytes(view[:8], "little")
        try:
            facts, sizes = json.loads(bytes(view[8:end]))
            for size in sizes:
                parts.append(bytes(view[end : end + size]))
                end += size
            return cls(dict(facts), tuple(parts))
        except (TypeError, RecursionError) as error:
            raise ValueError("not a message") from error


Handler = Callable[[Message], Message]


class ChildDied(Exception):
    """The child died of the message, or was ended; the message says how."""


class ChildNotStarted(Exception):
    """The child could not be started; says why."""


@dataclass(frozen=True)
class Limits:
    """``memory``: resident bytes; none: a share of what is free when a message is sent.

    ``idle_s``: seconds without progress.
    """

    idle_s: float
    memory: float | None = None


class Child:
    """One child process at a time, started by the first message.

    Args:
        build: pickle of a function without arguments that gives the handler of messages; run in
            the child. Its :class:`~mirnet.errors.ServiceError` is raised here, all other
            exceptions end the child.
        limits: of one message.
    """

    def __init__(self, build: bytes, limits: Limits) -> None:
        self._build, self._limits = build, limits
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None

    def ask(self, message: Message) -> Message:
        """The answer of the handler.

        Raises:
            ChildDied: no answer; the next message starts another child.
            ChildNotStarted: the handler cannot be built in a child.
            ServiceError: raised by the handler.
        """
        try:
            process, connection = self._started()
            limit = self._memory_limit(process)
            answer = self._exchange(process, connection, message.dump(), limit)
        except BaseException:
            self.close()
            raise
        if _STOPPED in answer.facts:
            raise ServiceError(answer.facts[_STOPPED], transient=bool(answer.facts["transient"]))
        return answer

    def close(self) -> None:
        """End the child, whatever it does."""
        process, self._process = self._process, None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is not None:
            process.kill()
            process.wait()

    def _started(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process is not None and self._connection is not None:
            return self._process, self._connection
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            words = [json.dumps(sys.path), str(end), str(self._limits.idle_s)]
            self._connection = Connection(ours.detach())
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", _START, *words],
                    stdin=subprocess.DEVNULL,
                    stdout=2,  # ours may be a document
                    pass_fds=[end],
                )
            except OSError as error:
                raise ChildNotStarted(str(error)) from error
        try:
            answer = self._exchange(self._process, self._connection, self._build, None)
        except ChildDied as died:
            raise ChildNotStarted(str(died)) from died
        if _READY not in answer.facts:
            raise ChildNotStarted(str(answer.facts.get(_FAILED)))
        return self._process, self._connection

    def _memory_limit(self, process: subprocess.Popen[bytes]) -> float:
        used = _resident(process) or 0
        return self._limits.memory or used + _SHARE_OF_FREE * free_memory()

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        connection: Connection,
        data: bytes,
        limit: float | None,
    ) -> Message:
        """Send and wait; ``limit``: resident bytes; none: while it starts."""
        most_s = _START_S if limit is None else self._limits.idle_s + _GRACE_S
        try:
            connection.send_bytes(data)
            heard = time.monotonic()
            while True:
                if connection.poll(_LOOK_S):
                    answer = Message.load(connection.recv_bytes())
                    if _PROGRESS not in answer.facts:
                        return answer
                    heard = time.monotonic()
                    advance()
                stop_if_asked()
                used = _resident(process)
                if limit is not None and used is not None and used > limit:
                    raise ChildDied(f"took {used / 2**30:.2f} GiB, of {limit / 2**30:.2f} allowed")
                if time.monotonic() - heard > most_s:
                    raise ChildDied(f"no progress for {most_s:g} s")
        except (EOFError, OSError, ValueError) as error:
            raise ChildDied(_cause(process)) from error


def _resident(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return None  # it has just died


def _cause(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return "sent something else than an answer"
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(end: int, idle_limit_s: float) -> None:
    """The child: builds the handler, then answers messages until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the parent ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _be_killed_first()
    os.set_inheritable(end, False)
    connection, lock = Connection(end), threading.Lock()

    def send(message: Message) -> None:
        with lock:
            connection.send_bytes(message.dump())

    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    try:
        handler = unpickled(inbox.get())()
    except Exception as error:  # noqa: BLE001 - the parent says it
        send(Message({_FAILED: f"{type(error).__name__}: {error}"}))
        return
    send(Message({_READY: True}))
    while True:
        message = Message.load(inbox.get())
        with ended_without_progress(idle_limit_s, lambda: send(Message({_PROGRESS: True}))):
            answer = _answer(handler, message)
        send(answer)


def unpickled(data: bytes) -> Any:
    """What this process or the one that started it has pickled; for no bytes of another origin."""
    return pickle.loads(data)


def _answer(handler: Handler, message: Message) -> Message:
    try:
        return handler(message)
    except DeviceBroken:
        raise  # for this process, and perhaps because of the image
    except ServiceError as error:
        return Message({_STOPPED: str(error), "transient": error.transient})


def _receive(connection: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    while True:
        try:
            inbox.put(connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)  # the parent is gone


def _be_killed_first() -> None:
    with suppress(OSError):  # not on Linux, or not allowed: our own limit is there
        Path("/proc/self/oom_score_adj").write_text("1000")


@contextmanager
def ended_without_progress(
    limit_s: float, progress: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """End this process, with its stacks on stderr, after ``limit_s`` seconds without
    :func:`mirnet.signals.advance`; also if the interpreter is blocked.

    Args:
        progress: called from a thread while there is progress.
    """
    ended, period = threading.Event(), min(1.0, limit_s / 4)

    def watch() -> None:
        while not ended.wait(period):
            if idle_s() < period:
                faulthandler.dump_traceback_later(limit_s, file=2, exit=True)
                progress()

    advance()
    faulthandler.dump_traceback_later(limit_s, file=2, exit=True)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
