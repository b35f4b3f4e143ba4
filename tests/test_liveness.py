"""Whether a process is alive, where clocks, host names and PIDs say little about it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from mirnet.liveness import ProcessIdentity, Unchanged, has_ended, this_process


def test_this_process_is_alive() -> None:
    mine = this_process()
    assert mine.machine
    assert not has_ended(mine)
    assert ProcessIdentity.parse(str(mine)) == mine


@pytest.mark.parametrize(
    "text",
    [
        *("", "1 2", "boot pid -1 2", "boot pid 1 x", "boot pid ² 1"),
        pytest.param("boot pid " + "1" * 4301 + " 1", id="many digits"),
        pytest.param("boot pid 1 " + "1" * 4301, id="many ticks"),
    ],
)
def test_other_text_is_no_identity(text: str) -> None:
    found = ProcessIdentity.parse(text)
    assert found is None or not found.machine


def test_the_largest_numbers_are_read() -> None:
    largest = ProcessIdentity("boot pid", 2**63 - 1, 2**64 - 1)
    assert ProcessIdentity.parse(str(largest)) == largest


def test_a_child_has_ended_when_it_is_gone() -> None:
    code = "from mirnet.liveness import this_process; print(this_process(), flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        theirs = ProcessIdentity.parse(child.stdout.readline().decode().strip())
        assert theirs is not None and theirs.pid == child.pid
        assert theirs.machine == this_process().machine
        assert not has_ended(theirs)
        child.kill()
        # it stays a zombie until it is waited for
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert has_ended(theirs)
    assert has_ended(theirs)


def test_a_process_that_goes_on_without_its_first_thread_is_alive() -> None:
    """/proc shows it as a zombie."""
    code = (
        "import ctypes, threading\n"
        "from mirnet.liveness import this_process\n"
        "mine, first = this_process(), threading.main_thread().native_id\n"
        "def rest():\n"
        "    while 'Z' not in open(f'/proc/self/task/{first}/stat').read().rpartition(')')[2]:\n"
        "        pass\n"
        "    print(mine, flush=True)\n"
        "    input()\n"
        "threading.Thread(target=rest).start()\n"
        "ctypes.CDLL(None).pthread_exit(None)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        theirs = ProcessIdentity.parse(child.stdout.readline().decode().strip())
        assert theirs is not None
        assert not has_ended(theirs)
        child.kill()
    assert has_ended(theirs)


def test_a_reused_pid_is_another_process() -> None:
    mine = this_process()
    assert has_ended(replace(mine, ticks=mine.ticks - 1))
    assert not has_ended(replace(mine, ticks=0)), "of a version that did not record it"


@pytest.mark.parametrize("machine", ["", "another boot", this_process().machine + "1"])
def test_nothing_is_known_of_other_machines(machine: str) -> None:
    """Also of another PID namespace of this one, whatever the name of its host."""
    assert not has_ended(ProcessIdentity(machine, 999_999_999, 1))


@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="of root")
def test_a_process_of_another_namespace_is_of_another_machine() -> None:
    """Its PID is 1 or 2 there, whatever has that PID here; the host name is the same."""
    code = "from mirnet.liveness import this_process; print(this_process(), flush=True); input()"
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", sys.executable]
    with subprocess.Popen(
        [*command, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.stdout is not None and child.stderr is not None
        theirs = ProcessIdentity.parse(child.stdout.readline().decode().strip())
        if theirs is None:
            pytest.skip(f"no namespaces here: {child.stderr.read().decode()}")
        assert not theirs.is_visible
        assert not has_ended(theirs)
        child.kill()
    assert not has_ended(theirs), "nobody can tell"


def test_a_process_that_cannot_be_seen_is_not_taken_for_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As where /proc shows to each user only their own processes."""

    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not has_ended(replace(this_process(), pid=999_999_999))


def test_unchanged_counts_only_time_in_which_it_looked() -> None:
    now = 0.0
    watch = Unchanged(max_gap_s=10, clock=lambda: now)
    assert watch.look("a") == 0
    now = 4
    assert watch.look("a") == 4
    now = 1000  # frozen
    assert watch.look("a") == 14
    assert watch.look("b") == 0
    now = 1001
    assert watch.look("b") == 1
