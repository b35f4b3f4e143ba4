"""SIGTERM at the worst moments: in a weakref callback, a finaliser, an import, a wait."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from mirnet.signals import (
    advance,
    ask_to_stop,
    hear_again,
    idle_s,
    stop_if_asked,
    termination_as_exception,
)


@pytest.fixture(autouse=True)
def _default() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    signal.signal(signal.SIGTERM, before)


class Something:
    """Can be referred to weakly."""


class Final:
    """Gets a SIGTERM while it is taken away."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


def in_a_weakref_callback() -> None:
    thing = Something()
    reference = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    assert reference() is None


def in_a_finaliser() -> None:
    Final()


def in_an_import(folder: Path) -> None:
    (folder / "raises_a_signal.py").write_text("import signal; signal.raise_signal(15)\n")
    subprocess_path = str(folder)
    sys.path.insert(0, subprocess_path)
    try:
        __import__("raises_a_signal")
        assert "raises_a_signal" in sys.modules
    finally:
        sys.path.remove(subprocess_path)
        sys.modules.pop("raises_a_signal", None)


@pytest.mark.parametrize("where", ["weakref", "finaliser", "import", "plain"])
def test_it_is_heeded_at_the_next_safe_point(where: str, tmp_path: Path) -> None:
    reached = []
    with pytest.raises(SystemExit) as caught, termination_as_exception():
        if where == "weakref":
            in_a_weakref_callback()
        elif where == "finaliser":
            in_a_finaliser()
        elif where == "import":
            in_an_import(tmp_path)
        else:
            os.kill(os.getpid(), signal.SIGTERM)
        reached.append("after the signal")
        advance()
        reached.append("never")
    assert caught.value.code == 143
    assert reached == ["after the signal"]


def test_what_is_put_in_order_on_the_way_out_is_not_interrupted() -> None:
    done = []
    with pytest.raises(SystemExit), termination_as_exception():
        try:
            signal.raise_signal(signal.SIGTERM)
            stop_if_asked()
        finally:
            advance()
            stop_if_asked()
            done.append("flushed")
    assert done == ["flushed"]


def test_a_block_that_ends_without_a_safe_point_heeds_it_too() -> None:
    with pytest.raises(SystemExit), termination_as_exception():
        signal.raise_signal(signal.SIGTERM)


def test_the_handler_of_before_decides_how_it_ends() -> None:
    class Cancelled(BaseException):
        pass

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise Cancelled

    signal.signal(signal.SIGTERM, cancel)
    with pytest.raises(Cancelled), termination_as_exception():
        in_a_weakref_callback()
        advance()
    assert signal.getsignal(signal.SIGTERM) is cancel
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_blocks_in_each_other_are_one() -> None:
    with pytest.raises(SystemExit), termination_as_exception():
        with termination_as_exception():
            signal.raise_signal(signal.SIGTERM)
            advance()
        pytest.fail("unreachable")


def test_another_thread_neither_takes_nor_heeds_it() -> None:
    problems: list[BaseException] = []

    def work() -> None:
        try:
            with termination_as_exception():
                signal.raise_signal(signal.SIGTERM)
                time.sleep(0.05)
                advance()
        except BaseException as error:  # noqa: BLE001
            problems.append(error)

    with pytest.raises(SystemExit), termination_as_exception():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        advance()
    assert problems == []


def test_a_library_that_replaces_the_handler_is_overruled() -> None:
    assert not hear_again()
    with pytest.raises(SystemExit), termination_as_exception():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        assert hear_again()
        signal.raise_signal(signal.SIGTERM)
        advance()


def test_progress_is_known() -> None:
    advance()
    time.sleep(0.05)
    assert idle_s() >= 0.05
    advance()
    assert idle_s() < 0.05
    ask_to_stop()  # nobody there
    with pytest.raises(SystemExit), termination_as_exception():
        ask_to_stop()
        advance()


def run(code: str, *, timeout: float = 60) -> tuple[int, str, float]:
    """A program that gets a SIGTERM once it prints; its code, its words, the seconds until then."""
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout is not None
        program.stdout.readline()
        program.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        out, err = program.communicate(timeout=timeout)
        return program.returncode, out + err, time.monotonic() - begun


def test_who_never_comes_to_a_safe_point_is_ended() -> None:
    code, words, seconds = run("""
        import threading
        from mirnet.signals import termination_as_exception
        with termination_as_exception(stop_s=1):
            print("up", flush=True)
            threading.Lock().acquire()
            lock = threading.Lock(); lock.acquire(); lock.acquire()  # for ever
    """)
    assert code == 143
    assert "still at work 1 s after SIGTERM" in words
    assert "most recent call first" in words
    assert seconds > 0.9


def test_who_swallows_the_exception_is_ended() -> None:
    code, _, _ = run("""
        import time
        from mirnet.signals import stop_if_asked, termination_as_exception
        with termination_as_exception(stop_s=1):
            print("up", flush=True)
            while True:
                try:
                    stop_if_asked()
                except SystemExit:
                    pass
                time.sleep(0.05)
    """)
    assert code == 143


def test_a_block_that_may_be_left_anywhere_is_left_in_order() -> None:
    code, words, _ = run("""
        import time
        from mirnet.signals import termination_as_exception
        try:
            with termination_as_exception(stop_s=30, raise_after_s=0.2):
                print("up", flush=True)
                time.sleep(60)
        finally:
            print("in order")
    """)
    assert code == 143
    assert "in order" in words


def test_but_not_in_a_finaliser() -> None:
    code, words, _ = run("""
        import time
        from mirnet.signals import termination_as_exception
        class Final:
            def __del__(self):
                print("up", flush=True)
                time.sleep(1.5)
                print("finalised")
        with termination_as_exception(stop_s=30, raise_after_s=0.2):
            Final()
            time.sleep(60)
    """)
    assert code == 143
    assert "finalised" in words
    assert "Exception ignored" not in words


def test_a_forked_child_dies_of_its_own_signal() -> None:
    with termination_as_exception(stop_s=0.2):
        child = os.fork()
        if child == 0:
            time.sleep(60)
            os._exit(0)
        time.sleep(0.1)
        os.kill(child, signal.SIGTERM)
        _, status = os.waitpid(child, 0)
        time.sleep(0.5)  # our own watchdog is not concerned
    assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
