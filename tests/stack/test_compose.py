"""What containers have of their own: ports on their network, restarts, rights, logs."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.open_ports import Port, ask, children_of, speaks_grpc
from tests.stack.compose_stack import ComposeStack, services
from tests.stack.stack_client import Stack
from tests.stack.test_stack_ports import PATHS, refuses_calls, shows_data

pytestmark = [pytest.mark.stack, pytest.mark.timeout(1800)]

_S3 = 8333
_LISTENS = "0A"
# what a node of Ray needs to be one, whatever else is open
_RAY_HEAD = {6379, 8265}


@pytest.fixture(scope="module")
def containers(stack: Stack) -> ComposeStack:
    if not isinstance(stack, ComposeStack):
        pytest.skip("this stack is not in containers: STACK=compose")
    return stack


def _listening(pid: int) -> Iterator[tuple[str, int]]:
    """Address and number of every TCP port in the network namespace of a process."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text("ascii").splitlines()[1:]:
            local, state = line.split()[1], line.split()[3]
            address, _, port = local.partition(":")
            if state == _LISTENS:
                words = struct.unpack(f"<{len(address) // 8}I", bytes.fromhex(address))
                packed = struct.pack(f">{len(words)}I", *words)
                kind = socket.AF_INET if len(packed) == 4 else socket.AF_INET6
                yield socket.inet_ntop(kind, packed), int(port, 16)


@pytest.fixture(scope="module")
def ports(containers: ComposeStack) -> list[Port]:
    """Those that another container reaches: the host asks them over the same bridge."""
    found = []
    for service in services():
        for container in containers.compose.containers(service):
            if container.running:
                open_here = {
                    number
                    for host, number in _listening(container.pid)
                    if not host.startswith("127.") and host not in ("::1", "::ffff:127.0.0.1")
                }
                found += [Port(container.address, number, service) for number in open_here]
    by_service = {name: {p.number for p in found if p.process == name} for name in services()}
    assert by_service["postgres"] == {5432}
    assert by_service["mlflow"] == {5000}
    assert by_service["prefect-server"] == {4200}
    assert by_service["s3"] > {_S3}
    assert by_service["ray-head"] > _RAY_HEAD
    assert by_service["ray-node"]
    return sorted(found)


def test_http_gives_nothing_to_another_container(ports: list[Port]) -> None:
    shown = [
        (port, path, answer.status, answer.body[:80])
        for port in ports
        for path in PATHS
        for tls in (False, True)
        if (answer := ask(port, path, tls=tls)) is not None and shows_data(answer)
    ]
    assert shown == []


def test_the_ports_behind_s3_do_not_even_talk(ports: list[Port]) -> None:
    inner = [port for port in ports if port.process == "s3" and port.number != _S3]
    assert len(inner) >= 8
    for port in inner:
        assert ask(port, "/") is None, port
        assert ask(port, "/", tls=True) is None, port
        assert not speaks_grpc(port, tls=False), port
        assert not speaks_grpc(port, tls=True), port


def test_ray_refuses_calls_without_its_token(ports: list[Port]) -> None:
    talking = [port for port in ports if speaks_grpc(port, tls=False)]
    assert {port.process for port in talking} == {"ray-head", "ray-node"}
    for port in talking:
        refuses_calls(port.host, port)


def test_processes_have_no_rights(containers: ComposeStack) -> None:
    """Nobody is root, can become it, or can write to the image; PostgreSQL starts as root."""
    for service in services():
        for container in containers.compose.containers(service):
            if not container.running or service == "postgres":
                continue
            first = psutil.Process(container.pid)
            for process in (first, *children_of(first)):
                status = Path(f"/proc/{process.pid}/status").read_text("utf-8")
                fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                assert fields["Uid"].split() == ["10001"] * 4, service
                assert int(fields["CapEff"], 16) == int(fields["CapBnd"], 16) == 0, service
                assert fields["NoNewPrivs"] == "1", service
            written = containers.compose.run(service, "touch", "/app/planted")
            assert "Read-only file system" in written.stderr, service


def test_no_secret_is_in_a_log(containers: ComposeStack) -> None:
    secrets = {value for name, value in containers.secrets if not name.endswith("_key")}
    for service in services():
        log = containers.compose.logs(service)
        assert not any(value in log for value in secrets), service


def test_each_service_comes_back(containers: ComposeStack) -> None:
    for service, described in services().items():
        if described["restart"] == "unless-stopped":
            containers.lose(service)
    containers.wait_healthy()
