from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mirnet.config import Settings
from mirnet.errors import ExtraMissing
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server

SCRIPT = """
import sys, time
from pathlib import Path
from mirnet.storage.s3server import S3Server
with S3Server(Path(sys.argv[1]), buckets=("abc",)) as server:
    print(server.endpoint_url, flush=True)
    time.sleep(60)
"""


def answers(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((host, int(port))) == 0


def gone(url: str) -> bool:
    deadline = time.monotonic() + 20
    while answers(url):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_server_never_outlives_its_owner(end: signal.Signals, tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    assert answers(url)
    os.kill(owner.pid, end)
    owner.communicate(timeout=30)
    assert gone(url)


def test_data_stay_and_buckets_are_there_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for round_ in range(2):
        with S3Server(tmp_path, buckets=("dark", "bright")) as server:
            for name, value in server.environment.items():
                monkeypatch.setenv(name, value)
            store = open_store("s3://dark/x", Settings())
            assert store.put_if_absent("k", b"data") is (round_ == 0)
            open_store("s3://bright", Settings()).check()
        assert gone(server.endpoint_url)
    server.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), S3Server(tmp_path / "file"):
        pass


def test_missing_program_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExtraMissing, match=r"program weed: .*\[demo\]"), S3Server(tmp_path / "s"):
        pass
