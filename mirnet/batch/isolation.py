"""A long-lived child process for work that may kill its process, fill the memory or never end.

It answers one message at a time. Its death costs the message at hand; the next one starts another
child. Memory is limited by what is resident: torch and CUDA reserve far more address space than
they use, so ``RLIMIT_AS`` would refuse harmless images. The parent looks every ``_LOOK_S`` and ends
a child that has more, and the kernel, if it runs out of memory first, chooses the child. Time is
limited by progress (:func:`mirnet.signals.advance`): a large image may take hours, a tile may not.

Answers are JSON and bytes and are never unpickled, because a file may have taken over the code
that read it. Nothing that the child sends, or does not, blocks or ends the parent.
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
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from mirnet.batch.messages import Channel, Message, receive, send
from mirnet.errors import DeviceBroken, ServiceError
from mirnet.images.limits import free_memory
from mirnet.signals import advance, advanced_at, stop_if_asked

_LOOK_S = 0.05
# a model may be read over the network, and torch is imported
_START_S = 900.0
# the child ends itself, with its stack; the parent does so for one that is stopped
_GRACE_S = 5.0
# the rest is for the parent, which uploads meanwhile, and for Ray, which ends workers at 95 %
_SHARE_OF_FREE = 0.7
_READY, _FAILED, _STOPPED, _PROGRESS = "ready", "failed", "stopped", "progress"
_NO_ANSWER = "sent something else than an answer"
# the timer ends a child that hangs before its first message, also in an import
_START = (
    "import faulthandler, json, sys; faulthandler.dump_traceback_later(float(sys.argv[4]),"
    " exit=True); sys.path[:] = json.loads(sys.argv[1]);"
    f"from {__name__} import serve; serve(int(sys.argv[2]), float(sys.argv[3]))"
)


Handler = Callable[[Message], Message]


class ChildDied(Exception):
    """The child died of the message, or was ended; the message says how.

    ``took``: bytes that were resident more than before the message, if it died for memory: above
    its limit, or by SIGKILL, which the kernel sends when a machine or container runs out of it;
    none for all other deaths.
    """

    def __init__(self, how: str = _NO_ANSWER, *, took: float | None = None) -> None:
        super().__init__(how)
        self.took = took


class ChildNotStarted(Exception):
    """The child could not be started, or takes more than its limit before any work; says why."""


@dataclass(frozen=True)
class Limits:
    """``memory``: resident bytes; none: a share of what is free when a message is sent.

    ``idle_s``: seconds without progress. ``start_s``: seconds until the handler is built.
    ``answer_bytes``: of one answer.
    """

    idle_s: float
    memory: float | None = None
    start_s: float = _START_S
    answer_bytes: int = 2**30


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
        self._channel: Channel | None = None

    def ask(self, message: Message) -> Message:
        """The answer of the handler.

        Raises:
            ChildDied: no answer; the next message starts another child.
            ChildNotStarted: the handler cannot be built in a child of this memory.
            ServiceError: raised by the handler.
        """
        try:
            process, channel, before, limit = self._ready()
            answer = self._exchange(process, channel, message.dump(), before, limit)
            stopped, transient = answer.facts.get(_STOPPED), answer.facts.get("transient")
            if _STOPPED not in answer.facts:
                return answer
            if not isinstance(stopped, str) or not isinstance(transient, bool):
                raise ChildDied
        except BaseException:
            self.close()
            raise
        raise ServiceError(stopped, transient=transient)

    def close(self) -> None:
        """End the child, whatever it does; the next message starts another one."""
        process, self._process = self._process, None
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if process is not None:
            process.kill()
            process.wait()

    def _ready(self) -> tuple[subprocess.Popen[bytes], Channel, int, float]:
        """A child below its limit of memory, its resident bytes, and the limit."""
        while True:
            is_new = self._process is None
            process, channel = self._started()
            before = _resident(process) or 0
            limit = self._limits.memory or before + _SHARE_OF_FREE * free_memory()
            if before < limit:
                return process, channel, before, limit
            self.close()  # earlier messages may have left it so large
            if is_new:
                raise ChildNotStarted(
                    f"it takes {before / 2**30:.2f} GiB before any image, of "
                    f"{limit / 2**30:.2f} allowed (MIRNET_CHILD_MEMORY_GIB)"
                )

    def _started(self) -> tuple[subprocess.Popen[bytes], Channel]:
        if self._process is not None and self._channel is not None:
            return self._process, self._channel
        ours, theirs = socket.socketpair()
        self._channel = Channel(ours, max_bytes=self._limits.answer_bytes)
        with theirs:
            end, limits = theirs.fileno(), self._limits
            words = [json.dumps(sys.path), str(end), str(limits.idle_s), str(limits.start_s)]
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
            answer = self._exchange(self._process, self._channel, self._build, 0, None)
        except ChildDied as died:
            raise ChildNotStarted(str(died)) from died
        if _READY not in answer.facts:
            raise ChildNotStarted(str(answer.facts.get(_FAILED)))
        return self._process, self._channel

    def _exchange(
        self,
        process: subprocess.Popen[bytes],
        channel: Channel,
        data: bytes,
        before: int,
        limit: float | None,
    ) -> Message:
        """Send and wait.

        Args:
            before: resident bytes.
            limit: resident bytes; none: while it starts.
        """
        limits = self._limits
        most_s = (limits.start_s if limit is None else limits.idle_s) + _GRACE_S
        heard, most = time.monotonic(), before
        channel.post(data)
        while True:
            try:
                answer = channel.step(_LOOK_S)
            except ValueError as error:
                raise ChildDied from error
            except (EOFError, OSError) as error:
                cause = _cause(process)
                took = most - before if cause == signal.SIGKILL.name else None
                raise ChildDied(cause, took=took) from error
            if answer is not None:
                if _PROGRESS not in answer.facts:
                    return answer
                heard = time.monotonic()
                advance()
            stop_if_asked()
            most = max(most, _resident(process) or 0)
            if limit is not None and most > limit:
                how = f"took {most / 2**30:.2f} GiB, of {limit / 2**30:.2f} allowed"
                raise ChildDied(how, took=most - before)
            if time.monotonic() - heard > most_s:
                raise ChildDied(f"no progress for {most_s:g} s")


def _resident(process: subprocess.Popen[bytes]) -> int | None:
    try:
        return int(psutil.Process(process.pid).memory_info().rss)
    except psutil.Error:
        return None  # it has just died


def _cause(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return _NO_ANSWER
    return signal.Signals(-code).name if code < 0 else f"exit code {code}"


def serve(end: int, idle_limit_s: float) -> None:
    """The child: builds the handler, then answers messages until the parent is gone."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole group: the parent ends us
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _be_killed_first()
    os.set_inheritable(end, False)
    parent, lock = socket.socket(fileno=end), threading.Lock()

    def tell(message: Message) -> None:
        with lock:
            send(parent, message)

    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(parent, inbox), daemon=True).start()
    try:
        handler = unpickled(inbox.get())()
    except Exception as error:  # noqa: BLE001 - the parent says it
        tell(Message({_FAILED: f"{type(error).__name__}: {error}"}))
        return
    faulthandler.cancel_dump_traceback_later()
    tell(Message({_READY: True}))
    while True:
        message = Message.load(inbox.get())
        with ended_without_progress(idle_limit_s, lambda: tell(Message({_PROGRESS: True}))):
            answer = _answer(handler, message)
        tell(answer)


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


def _receive(parent: socket.socket, inbox: queue.SimpleQueue[bytes]) -> None:
    while True:
        try:
            inbox.put(receive(parent))
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
        seen = begun
        while not ended.wait(period):
            # not by its age: this thread may have slept for longer than its period
            if (latest := advanced_at()) != seen:
                seen = latest
                faulthandler.dump_traceback_later(limit_s, file=2, exit=True)
                progress()

    advance()
    begun = advanced_at()
    faulthandler.dump_traceback_later(limit_s, file=2, exit=True)
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        faulthandler.cancel_dump_traceback_later()
