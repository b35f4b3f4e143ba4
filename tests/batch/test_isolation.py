"""The child process: what it answers, what it dies of, and what it leaves behind."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import psutil
import pytest

from mirnet.batch.isolation import Child, ChildDied, ChildNotStarted, Limits, Message
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


_ORPHAN = """
import os, pickle, signal, threading, time
from mirnet.batch.isolation import Child, Limits, Message
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
