"""A task that takes too long ends at a safe point; a process that does not is ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flows.time_limits import OutOfTime, limited, time_limit
from mirnet.signals import advance, termination_as_exception


def wait_for_ever() -> None:
    while True:
        time.sleep(0.01)


def test_a_block_ends_at_its_limit_and_cleans_up() -> None:
    cleaned = []
    limit = time_limit("x", 0.1, stop_s=20, hint="see y")
    with pytest.raises(OutOfTime, match=r"x took longer than 0\.1 s; see y"), limit:
        try:
            wait_for_ever()
        finally:
            cleaned.append("lease")
    assert cleaned == ["lease"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_long_work_ends_at_a_safe_point_only() -> None:
    done = []
    limit = time_limit("x", 0.1, stop_s=20, hint="")
    with pytest.raises(OutOfTime), limit, termination_as_exception():
        while True:
            time.sleep(0.3)  # the limit passes here
            done.append("whole")
            advance()
    assert done == ["whole"]


def test_a_block_in_time_is_left_alone() -> None:
    with time_limit("x", 60, stop_s=20, hint=""):
        pass
    with pytest.raises(KeyError), time_limit("x", 60, stop_s=20, hint=""):
        raise KeyError("its own")


def test_the_outer_limit_ends_the_inner_block() -> None:
    outer, inner = (
        time_limit(what, s, stop_s=20, hint="") for what, s in (("flow", 0.1), ("task", 60))
    )
    with pytest.raises(OutOfTime, match="flow took"), outer, inner:
        wait_for_ever()


def test_the_setting_is_read_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_CHECK_LIMIT_S", "0.1")
    with pytest.raises(OutOfTime, match="MIRNET_CHECK_LIMIT_S"):
        limited("look", "check")(wait_for_ever)()


STUCK = """
import time
from flows.time_limits import time_limit
with time_limit("x", 0.1, stop_s=0.1, hint=""):
    while True:
        try:
            time.sleep(60)
        except BaseException:
            print("swallowed", flush=True)
"""


def test_a_process_that_does_not_stop_is_ended() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", STUCK],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 143, ended.stderr
    assert "swallowed" in ended.stdout
    assert "x goes on" in ended.stderr and "Thread" in ended.stderr
