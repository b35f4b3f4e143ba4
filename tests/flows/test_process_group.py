"""Ctrl-C reaches the process that runs the flow, and nothing that it started."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flows.process_group import exit_code

SCRIPT = """
import subprocess, sys, time
from pathlib import Path
from flows.process_group import leave_foreground_group

leave_foreground_group()
server = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
Path(sys.argv[1]).write_text(str(server.pid))
try:
    time.sleep(60)
except KeyboardInterrupt:
    print("server alive" if server.poll() is None else "server dead", flush=True)
    server.terminate()
    sys.exit(130)
"""


def test_ctrl_c_of_the_group_is_heard_once(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(ready)],
        start_new_session=True,
        stdout=subprocess.PIPE,
        text=True,
        # a runner in the background may have handed down "ignore"
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while not (ready.exists() and ready.read_text()):
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert output == "server alive\n"
    assert process.returncode == 130


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (3, 3), (-9, 137)])
def test_exit_code_is_what_a_shell_says(code: int, expected: int) -> None:
    assert exit_code(code) == expected
