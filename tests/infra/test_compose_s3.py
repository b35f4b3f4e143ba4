"""The S3 server of compose.yaml, its commands run here with places of our own."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirnet.config import Settings, environment
from mirnet.errors import StorageError
from mirnet.storage.places import open_store
from mirnet.storage.s3server import free_ports
from tests.open_ports import ask, family, listening, private, speaks_grpc

_NAMES = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")


@dataclass(frozen=True)
class Site:
    """Where the container's places are on this machine."""

    root: Path
    compose: dict[str, Any]
    values: dict[str, str]
    ports: dict[str, int]

    def local(self, word: str) -> str:
        word = word.replace("/etc/seaweedfs", str(self.root / "keys"))
        word = re.sub(r"/data\b", str(self.root / "data"), word)
        for name, number in (("master.port", 9333), ("filer.port", 8888)):
            address = f"localhost:{self.ports[name]}.{self.ports[name + '.grpc']}"
            word = word.replace(f"s3:{number}", address)
        return re.sub(r"\bs3( |$)", r"localhost\1", word).replace("$$", "$")

    def start(self, service: str, *more: str) -> subprocess.Popen[bytes]:
        described = self.compose["services"][service]
        given = {
            key: re.sub(r"\$\{(\w+):\?\}", lambda match: self.values[match[1]], value)
            for key, value in described["environment"].items()
        }
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.Popen(
            [*(self.local(word) for word in described["command"]), *more],
            env={"PATH": path, "HOME": str(self.root), "PYTHONPATH": os.pathsep.join(sys.path)}
            | given,
            cwd=self.root / "data",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def client(self, who: str) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": self.values[f"S3_{who}_KEY"],
            "AWS_SECRET_ACCESS_KEY": self.values[f"S3_{who}_SECRET"],
            "AWS_REGION": "us-east-1",
            "MIRNET_S3_ENDPOINT_URL": f"http://127.0.0.1:{self.ports['s3.port']}",
        }

    def wait(self, who: str, bucket: str) -> None:
        deadline = time.monotonic() + 60
        with environment(**self.client(who)):
            settings = Settings(s3_endpoint_url=self.client(who)["MIRNET_S3_ENDPOINT_URL"])
            while True:
                try:
                    open_store(f"s3://{bucket}", settings).check()
                    return
                except StorageError:
                    assert time.monotonic() < deadline
                    time.sleep(0.2)


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("compose")
    for name in ("data", "keys"):
        # as an older version left them
        (folder / name).mkdir(mode=0o755)
    text = (root / "infra/compose.yaml").read_text(encoding="utf-8")
    found = free_ports(2 * len(_NAMES))
    names = [*_NAMES, *(f"{name}.grpc" for name in _NAMES)]
    values = {name: secrets.token_hex(16) for name in re.findall(r"\$\{(\w+):\?\}", text)}
    yield Site(folder, yaml.safe_load(text), values, dict(zip(names, found, strict=True)))


@pytest.fixture(scope="module")
def server(site: Site) -> Iterator[subprocess.Popen[bytes]]:
    ports = (f"-{name}={number}" for name, number in site.ports.items())
    process = site.start("s3", "-ip=localhost", "-ip.bind=127.0.0.1", *ports)
    try:
        site.wait("ADMIN", "mlflow")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_its_inner_ports_ask_for_a_certificate(site: Site, server: subprocess.Popen[bytes]) -> None:
    ports = listening(family(server.pid))
    assert {port.number for port in ports} <= set(site.ports.values())
    assert len(ports) >= len(site.ports) - 1  # the administrator comes last
    for port in ports:
        if port.number == site.ports["s3.port"]:
            answer = ask(port, "/mlflow")
            assert answer is not None and answer.status == 403
            continue
        assert ask(port, "/") is None
        assert ask(port, "/", tls=True) is None
        assert not speaks_grpc(port, tls=False)
        assert not speaks_grpc(port, tls=True)
    assert private(site.root / "data") == private(site.root / "keys") == []


@pytest.mark.usefixtures("server")
def test_identities_are_made_with_the_keys(site: Site) -> None:
    assert site.start("s3-identities").wait(timeout=60) == 0
    site.wait("PIPELINE", "photos")
    with (
        environment(**site.client("PIPELINE")),
        pytest.raises(StorageError, match="access denied"),
    ):
        settings = Settings(s3_endpoint_url=site.client("PIPELINE")["MIRNET_S3_ENDPOINT_URL"])
        open_store("s3://mlflow", settings).check()
