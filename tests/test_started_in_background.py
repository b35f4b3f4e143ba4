"""The tests give the same outcome in the foreground, in the background and under nohup."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SIGNALS = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP)
_SLEEPER = "print('up', flush=True); import time; time.sleep(60)"


@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_that_a_test_starts_hears_its_signals(number: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _SLEEPER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"up\n"
        child.send_signal(number)
        try:
            assert child.wait(timeout=10) == -number
        finally:
            child.kill()


def test_also_where_the_tests_were_started_in_the_background() -> None:
    """As ``make test &`` in a script, or ``nohup make test``."""

    def ignore() -> None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    name = f"{__file__}::{test_a_program_that_a_test_starts_hears_its_signals.__name__}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", name],
        cwd=ROOT,
        preexec_fn=ignore,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert f"{len(SIGNALS)} passed" in done.stdout
