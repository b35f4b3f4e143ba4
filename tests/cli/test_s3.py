"""``mirnet s3`` as a process: what it prints, and that its data survive."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.storage import s3server
from mirnet.storage.places import open_store
from mirnet.storage.s3keys import alone, server_keys
from mirnet.storage.s3server import free_ports
from tests.cli.commands import run


@contextmanager
def serving(
    folder: Path, *words: str, end: signal.Signals, **variables: str
) -> Iterator[Mapping[str, str]]:
    """The variables that it printed; after the block it has stopped and said so."""
    command = [sys.executable, "-m", "mirnet.cli", "s3", "--folder", str(folder), *words, "--json"]
    with subprocess.Popen(
        command,
        env=os.environ | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        document = "".join(iter(process.stdout.readline, "}\n"))
        if not document:
            pytest.fail(process.stderr.read())
        printed = json.loads(document + "}")
        try:
            yield printed["environment"]
        finally:
            process.send_signal(end)
            rest, told = process.communicate(timeout=60)
        assert process.returncode == 0 and rest == ""
        assert f"stopped: S3 at {printed['endpoint']}" in told.splitlines()[-1]
        with socket.socket() as probe:
            address = ("127.0.0.1", int(printed["endpoint"].rpartition(":")[2]))
            assert probe.connect_ex(address) != 0, "nothing listens any more"


def test_data_and_keys_survive_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, (port,) = tmp_path / "s3", free_ports(1)
    words = ("--port", str(port), "--bucket", "dark")
    with serving(folder, *words, end=signal.SIGINT) as first:
        assert first["AWS_ENDPOINT_URL"] == f"http://127.0.0.1:{port}"
        for name, value in first.items():
            monkeypatch.setenv(name, value)
        open_store("s3://dark/a", Settings()).put("x.bin", b"kept")
        assert run(monkeypatch, "s3", "--folder", str(folder)) == 1, "one server per folder"
    assert (folder / "keys.json").stat().st_mode & 0o777 == 0o600
    for name in first:
        monkeypatch.delenv(name)
    with serving(folder, *words, end=signal.SIGTERM) as second:
        assert second == first
        for name, value in second.items():
            monkeypatch.setenv(name, value)
        assert open_store("s3://dark/a", Settings()).get("x.bin").data == b"kept"


def test_keys_of_others_and_a_port_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server_keys(tmp_path)
    (tmp_path / "keys.json").chmod(0o644)
    with pytest.raises(StorageError, match="others may read it"):
        server_keys(tmp_path)
    (tmp_path / "keys.json").chmod(0o600)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert run(monkeypatch, "s3", "--folder", str(tmp_path), "--port", port) == 1
    assert f"127.0.0.1:{port} is in use" in capsys.readouterr().err


def test_without_a_port_it_takes_a_free_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setattr(s3server, "USUAL_PORT", taken.getsockname()[1])
        assert s3server.usual_port() != taken.getsockname()[1]
    assert s3server.usual_port() == s3server.USUAL_PORT


def test_a_folder_that_another_server_has_gets_no_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two that start at once would each make some, and one would print keys that do not hold."""
    with alone(tmp_path / "s3"):
        assert run(monkeypatch, "s3", "--folder", str(tmp_path / "s3")) == 1
    assert "another S3 server has it" in capsys.readouterr().err
    assert not (tmp_path / "s3" / "keys.json").exists()
    (tmp_path / "dark.png").write_bytes(b"image")
    assert run(monkeypatch, "s3", "--folder", str(tmp_path / "dark.png")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("dark.png is a file: name a folder")
