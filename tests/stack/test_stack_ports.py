"""Every port that anything of the stack listens on, asked by a stranger."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.extras import program
from mirnet.stack.processes import of_stack
from mirnet.storage.s3server import keys_folder
from tests.open_ports import (
    Answer,
    Port,
    ask,
    children_of,
    listening,
    private,
    speaks_grpc,
    weed_shell,
)
from tests.stack.stack_client import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

PATHS = (
    "/",
    "/metrics",
    "/status",
    "/dir/assign",
    "/col/delete?collection=photos",
    "/buckets/photos/",
    "/api/version",
    "/api/jobs/",
    "/api/v0/nodes",
    "/api/2.0/mlflow/experiments/search",
    "/api/flows/filter",
    "/api/admin/settings",
    "/logs",
)
# pages without data, which ask for a password themselves
_PAGES = (b"<!doctype html", b"<!DOCTYPE html")
_CALLS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.InternalKVGcsService/InternalKVKeys",
    "/ray.rpc.JobInfoGcsService/GetAllJobInfo",
    "/ray.rpc.NodeManagerService/GetNodeStats",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.RayletDriver/ClusterInfo",
    "/ray.rpc.RayletDriver/KVList",
)


@pytest.fixture(scope="module")
def ports(stack: Stack) -> list[Port]:
    marked = of_stack(stack.plan.stack_id)
    # Ray's agents set their titles over their environment, and with it over the marker
    below = [child for process in marked for child in children_of(process)]
    found = listening({*marked, *below})
    assert any(port.process == "ray::DashboardAgent" for port in found)
    numbers = {port.number for port in found}
    # those that a person uses, so that the list is not empty for another reason
    for name in ("s3", "mlflow", "prefect", "ray-dashboard", "ray-gcs", "filer-grpc", "master"):
        assert stack.plan.ports[name] in numbers, name
    return found


def test_http_gives_nothing_to_a_stranger(ports: list[Port]) -> None:
    given = []
    for port in ports:
        for path in PATHS:
            for tls in (False, True):
                answer = ask(port, path, tls=tls)
                if answer is not None and shows_data(answer):
                    given.append((port, path, answer.status, answer.body[:80]))
    assert given == []


def shows_data(answer: Answer) -> bool:
    """Whether a server told something to somebody without credentials."""
    return answer.status < 400 and bool(answer.body) and not answer.body.lstrip().startswith(_PAGES)


def test_the_ports_behind_s3_do_not_even_talk(ports: list[Port], stack: Stack) -> None:
    inner = [p for p in ports if p.process == "weed" and p.number != stack.plan.ports["s3"]]
    assert len(inner) == 9
    for port in inner:
        assert ask(port, "/") is None, port
        assert ask(port, "/", tls=True) is None, port
        assert not speaks_grpc(port, tls=False), port
        assert not speaks_grpc(port, tls=True), port


def test_grpc_calls_without_a_token_are_refused(ports: list[Port]) -> None:
    talking = [port for port in ports if speaks_grpc(port, tls=False)]
    assert talking, "Ray is there"
    for port in talking:
        host = port.host.removeprefix("::ffff:").replace("::", "127.0.0.2")
        refuses_calls(host, port)


def refuses_calls(host: str, port: Port) -> None:
    """No call of Ray's services is answered without its token."""
    grpc = pytest.importorskip("grpc")
    with grpc.insecure_channel(f"{host}:{port.number}") as channel:
        for call in _CALLS:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(call)(b"", timeout=10)
            code = caught.value.code()
            refused = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED)
            assert code in refused, (port, call, code)


def test_the_shell_of_a_stranger_gets_nothing(stack: Stack) -> None:
    keys = keys_folder(stack.home.folder("s3"))

    def seen(given: Path | None) -> str:
        return weed_shell(
            program("stack", "weed"), stack.plan.ports, "s3.bucket.list", "s3.configure", keys=given
        )

    assert "photos" in seen(keys)
    stranger = seen(None)
    assert "photos" not in stranger
    assert stack.secrets.s3_pipeline_key not in stranger


def test_the_data_of_the_s3_server_are_its_own(stack: Stack) -> None:
    assert private(stack.home.folder("s3")) == []
