"""The child process: what it answers, what it dies of, and what it leaves behind."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from mirnet import signals
from mirnet.batch.isolation import (
    Child,
    ChildDied,
    ChildNotStarted,
    Limits,
    ended_without_progress,
)
from mirnet.batch.messages import Message
from mirnet.errors import DeviceBroken, ServiceError, StorageError
from mirnet.signals import advance, termination_as_exception

LIMITS = Limits(idle_s=3.0, memory=600 * 2**20)


def build() -> object:
    return answer


def build_nothing() -> object:
    raise ValueError("no such model")


def answer(message: Message) -> Message:
    do = message.facts.get("do")
    if do == "abort":
        os.abort()
    if do == "memory":
        held = []
        while True:
            held.append(b"x" * 2**23)
            advance()  # not the time
    if do == "loop":
        while True:
            pass
    if do == "sleep":
        time.sleep(600)
    if do == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if do == "device":
        raise DeviceBroken("CUDA error")
    if do == "store":
        raise StorageError("access denied", transient=False)
    if do == "work":
        for _ in range(12):
            time.sleep(0.25)
            advance()
    if do == "raw":
        os.write(int(sys.argv[2]), message.parts[0])
        time.sleep(600)
    if do == "facts":
        return Message(message.facts["facts"])
    if do == "print":
        print("not in the document of the parent")
    return Message({"pid": os.getpid()}, (*message.parts, b""))


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child(pickle.dumps(build), LIMITS)
    yield child
    child.close()


def pid(child: Child) -> int:
    return int(child.ask(Message({})).facts["pid"])


def test_one_child_answers_all_messages(child: Child, capfd: pytest.CaptureFixture[str]) -> None:
    parts = (b"\0" * 3_000_000, b"", b"\xff{}")
    reply = child.ask(Message({"do": "print"}, parts))
    assert reply.parts == (*parts, b"")
    assert reply.facts["pid"] == pid(child) != os.getpid()
    assert "not in the document" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("do", "cause"),
    [
        ("abort", "SIGABRT"),
        ("memory", "of 0.59 allowed"),
        ("loop", "exit code 1"),
        pytest.param("sleep", "exit code 1", marks=pytest.mark.slow),
        ("device", "exit code 1"),
        pytest.param("stop", "no progress for 8 s", marks=pytest.mark.slow),
    ],
)
def test_a_death_costs_one_message(do: str, cause: str, child: Child) -> None:
    before = pid(child)
    with pytest.raises(ChildDied, match=cause):
        child.ask(Message({"do": do}))
    assert not psutil.pid_exists(before)
    assert pid(child) != before


def test_progress_extends_the_time(child: Child) -> None:
    before = pid(child)
    assert child.ask(Message({"do": "work"})).facts["pid"] == before


def test_an_error_of_a_service_is_raised_here(child: Child) -> None:
    before = pid(child)
    with pytest.raises(ServiceError, match="access denied") as raised:
        child.ask(Message({"do": "store"}))
    assert not raised.value.transient
    assert pid(child) == before


@pytest.mark.parametrize(
    ("start", "why"),
    [(build_nothing, "ValueError: no such model"), (partial(os._exit, 3), "exit code 3")],
)
def test_a_child_that_cannot_start_says_why(start: object, why: str) -> None:
    with pytest.raises(ChildNotStarted, match=why):
        Child(pickle.dumps(start), LIMITS).ask(Message({}))


def test_a_stop_ends_the_wait_and_the_child(child: Child) -> None:
    before = pid(child)
    with pytest.raises(SystemExit), termination_as_exception():
        signal.raise_signal(signal.SIGTERM)
        child.ask(Message({"do": "sleep"}))
    assert not psutil.pid_exists(before)


def test_a_stop_ends_the_wait_for_a_child_that_does_not_read(child: Child) -> None:
    os.kill(before := pid(child), signal.SIGSTOP)
    with pytest.raises(SystemExit), termination_as_exception():
        signal.raise_signal(signal.SIGTERM)
        child.ask(Message({}, (bytes(5_000_000),)))
    assert not psutil.pid_exists(before)


def test_a_stop_ends_the_wait_for_the_rest_of_an_answer(child: Child) -> None:
    before = pid(child)
    raised = threading.Timer(1.0, signal.raise_signal, [signal.SIGTERM])
    with pytest.raises(SystemExit), termination_as_exception():
        raised.start()
        child.ask(Message({"do": "raw"}, (struct.pack("<Q", 1000) + b"x",)))
    assert not psutil.pid_exists(before)


def framed(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


@pytest.mark.parametrize(
    "raw",
    [
        struct.pack("<Q", 2**40),
        framed(b""),
        framed(framed(b"[[], []]")),
        framed(framed(b"[{}, [-1, 1]]")),
        framed(framed(b"[{}, [true]]") + b"x"),
        framed(framed(b"[{}, [1]]")),
        framed(framed(b"[" * 100_000)),
        framed(framed(b"7")),
    ],
)
def test_what_is_no_answer_costs_the_child(raw: bytes, child: Child) -> None:
    before = pid(child)
    with pytest.raises(ChildDied, match="something else than an answer") as died:
        child.ask(Message({"do": "raw"}, (raw,)))
    assert died.value.took is None
    assert not psutil.pid_exists(before)


@pytest.mark.parametrize("facts", [{"stopped": "x"}, {"stopped": 1, "transient": True}])
def test_an_error_of_a_service_has_its_types(facts: dict[str, object], child: Child) -> None:
    with pytest.raises(ChildDied, match="something else than an answer"):
        child.ask(Message({"do": "facts", "facts": facts}))


def test_a_child_above_its_limit_before_the_message_has_not_died_of_it() -> None:
    with pytest.raises(ChildNotStarted, match=r"before any image, of 0\.00 allowed"):
        Child(pickle.dumps(build), Limits(idle_s=3.0, memory=2**20)).ask(Message({}))


def test_a_child_that_never_gets_ready_ends_itself() -> None:
    limits = Limits(idle_s=3.0, start_s=1.0)
    with pytest.raises(ChildNotStarted, match="exit code 1"):
        Child(pickle.dumps(partial(time.sleep, 600)), limits).ask(Message({}))


def test_progress_counts_however_late_it_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watching thread may sleep for longer than its period."""
    seen = threading.Event()
    with ended_without_progress(60.0, seen.set):
        monkeypatch.setattr(signals, "_advanced", time.monotonic() - 30.0)
        assert seen.wait(30.0)


_ORPHAN = """
import os, pickle, signal, threading, time
from mirnet.batch.isolation import Child, Limits
from mirnet.batch.messages import Message
from tests.batch.test_isolation import build
child = Child(pickle.dumps(build), Limits(idle_s=60))
print(child.ask(Message({})).facts["pid"], flush=True)
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGKILL)).start()
child.ask(Message({"do": "sleep"}))
"""


def test_a_child_ends_with_its_parent() -> None:
    parent = subprocess.run(
        [sys.executable, "-c", _ORPHAN],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        timeout=120,
    )
    assert parent.returncode == -signal.SIGKILL
    orphan = psutil.Process(int(parent.stdout)) if psutil.pid_exists(int(parent.stdout)) else None
    assert orphan is None or orphan.wait(timeout=60) is None
