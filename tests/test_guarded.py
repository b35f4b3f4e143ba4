"""Servers end with the process that started them."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from mirnet.guarded import guarded

# a server with a worker, which the server waits for
_SERVER = (
    "import os, time\nif os.fork():\n os.wait()\nelse:\n print(1, flush=True)\n time.sleep(600)"
)
# starts it and waits; the pipe of the server's output ends with its last process
_OWNER = f"""
import subprocess, sys, time
from mirnet.guarded import guarded
command = guarded(sys.executable, "-c", {_SERVER!r})
subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP, signal.SIGTERM])
def test_whatever_ends_the_owner_ends_server_and_worker(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _OWNER], stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == b"1\n"
        owner.send_signal(number)
        assert owner.communicate(timeout=60) == (b"", None), "no process has the pipe any more"


def test_the_end_of_the_server_is_seen_with_its_code() -> None:
    command = guarded(sys.executable, "-c", "import sys; sys.exit(7)")
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as server:
        assert server.wait(timeout=60) == 7
