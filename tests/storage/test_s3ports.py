"""The S3 server gives nothing to anybody without its key, on none of its ports."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from mirnet.config import Settings, environment
from mirnet.errors import StorageError
from mirnet.extras import program
from mirnet.storage import s3server
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server, keys_folder, prepare_folder
from mirnet.storage.s3tls import CONFIGURATION, write_configuration
from tests.open_ports import ask, family, listening, private, speaks_grpc, weed_shell

PATHS = (
    "/",
    "/status",
    "/metrics",
    "/dir/status",
    "/dir/assign",
    "/dir/lookup?volumeId=1",
    "/col/delete?collection=test",
    "/vol/grow?count=1",
    "/cluster/status",
    "/buckets/",
    "/buckets/test/",
    "/etc/iam/",
    "/ui/index.html",
    "/healthz",
    "/?Action=ListUsers&Version=2010-05-08",
    "/debug/pprof/",
)


def test_no_port_answers_without_credentials(s3_server: S3Server, s3: str) -> None:
    store = open_store(s3, Settings())
    store.put("secret.txt", b"a secret", content_type="text/plain")
    assert s3_server._process is not None
    ports = listening(family(s3_server._process.pid))
    assert {port.number for port in ports} <= set(s3_server.ports.values())
    assert len(ports) >= len(s3_server.ports) - 1  # the administrator comes last
    public = s3_server.ports["s3"]
    for port in ports:
        for path in (*PATHS, f"/{s3.removeprefix('s3://')}/secret.txt"):
            for method in ("GET", "POST"):
                answer = ask(port, path, method=method)
                if port.number != public:
                    assert answer is None, (port, path, answer)
                else:
                    # that it lives is all that it says
                    assert answer is None or answer.status >= 400 or answer.body == b"", path
                assert ask(port, path, method=method, tls=True) is None, (port, path)
        assert not speaks_grpc(port, tls=False), port
        assert not speaks_grpc(port, tls=True), port
    assert store.get("secret.txt").data == b"a secret"


def test_the_shell_works_with_the_keys_of_this_server_only(
    s3_server: S3Server, tmp_path: Path
) -> None:
    commands = ("s3.bucket.list", "s3.configure")
    others = write_configuration(tmp_path / "other")

    def seen(keys: Path | None) -> str:
        return weed_shell(program("demo", "weed"), s3_server.ports, *commands, keys=keys)

    ours = seen(keys_folder(s3_server.folder))
    assert "test" in ours and "identities" in ours
    for keys in (None, others):
        assert not {"test", "identities"} & set(re.findall(r"\w+", seen(keys)))


def test_nobody_else_can_read_the_files(s3_server: S3Server) -> None:
    assert s3_server.folder.stat().st_mode & 0o777 == 0o700
    keys = keys_folder(s3_server.folder)
    assert keys.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in keys.iterdir()} == {0o600}
    assert private(s3_server.folder) == []


def test_keys_are_made_once_and_follow_a_folder_that_moves(tmp_path: Path) -> None:
    prepare_folder(tmp_path / "a")
    before = {p.name: p.read_bytes() for p in keys_folder(tmp_path / "a").iterdir()}
    prepare_folder(tmp_path / "a")
    assert {p.name: p.read_bytes() for p in keys_folder(tmp_path / "a").iterdir()} == before
    (tmp_path / "a").rename(tmp_path / "b")
    prepare_folder(tmp_path / "b")
    moved = {p.name: p.read_bytes() for p in keys_folder(tmp_path / "b").iterdir()}
    assert str(tmp_path / "b").encode() in moved.pop(CONFIGURATION)
    del before[CONFIGURATION]
    assert moved == before


def test_keys_lost_in_part_are_made_again(tmp_path: Path) -> None:
    keys = write_configuration(tmp_path / "keys")
    before = (keys / "authority.pem").read_bytes()
    (keys / "key.pem").unlink()
    write_configuration(tmp_path / "keys")
    assert (keys / "key.pem").is_file()
    assert (keys / "authority.pem").read_bytes() != before


def test_a_folder_that_cannot_hold_keys_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"file/keys"):
        write_configuration(tmp_path / "file" / "keys")


def test_data_of_a_server_without_certificates_come_up_again(tmp_path: Path) -> None:
    """What an older version left: a readable folder, no keys."""
    folder = tmp_path / "old"
    folder.mkdir(mode=0o755)
    server = S3Server(folder, buckets=("dark",))
    *free, metrics = s3server.free_ports(11)
    server.ports = dict(zip(s3server.PORTS, free, strict=True))
    server.endpoint_url = f"http://127.0.0.1:{server.ports['s3']}"
    command = s3server.server_argv(
        program("demo", "weed"), folder, server.ports, buckets=server.buckets
    )
    old = subprocess.Popen(
        # the server remembers the metrics port of stacks of before
        [command[0], *command[2:], f"-metricsPort={metrics}"],
        env={
            "AWS_ACCESS_KEY_ID": server.access_key,
            "AWS_SECRET_ACCESS_KEY": server.secret_key,
            "HOME": str(folder),
        },
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 60
        with environment(**server.environment):
            while True:
                try:
                    open_store("s3://dark", Settings()).put("k", b"kept", content_type="a/b")
                    break
                except StorageError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)
    finally:
        old.terminate()
        old.wait(timeout=20)
    with S3Server(folder, buckets=("dark",)) as new, environment(**new.environment):
        assert open_store("s3://dark", Settings()).get("k").data == b"kept"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert new._process is not None
        ports = {port.number for port in listening(family(new._process.pid))}
        assert ports <= set(new.ports.values())
