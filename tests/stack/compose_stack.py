"""The stack of ``infra/compose.yaml``: containers on a bridge network, seen from their host.

``STACK=compose`` selects it. ``COMPOSE`` is the command, ``docker compose`` or ``podman-compose``
with options; ``MIRNET_IMAGE`` and ``POSTGRES_IMAGE`` name other images.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirnet.config import child_environment
from mirnet.stack.plan import Secrets, StackPaths, StackPlan
from mirnet.storage.s3server import free_ports
from tests.stack.stack_client import PROJECT, Stack, wait_for

UP_S = 900
# as the worker's container sees the pairs
DATA = "/app/data"
_FILE = PROJECT / "infra/compose.yaml"
_PORTS = {"mlflow": "MLFLOW", "prefect": "PREFECT", "ray-dashboard": "RAY", "s3": "S3"}
# fields of Secrets that have other names than the variables
_SECRETS = {
    "MLFLOW_SESSION_KEY": "mlflow_session",
    "RAY_TOKEN": "ray",
    "S3_INTERNAL_KEY": "s3_internal",
}


@dataclass(frozen=True)
class Container:
    """A container of a service as its engine sees it now."""

    name: str
    pid: int
    status: str
    exit_code: int
    address: str

    @property
    def running(self) -> bool:
        return self.status == "running"


@dataclass(frozen=True)
class Compose:
    """The commands of an engine for one project."""

    command: tuple[str, ...]
    engine: str
    project: str
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, timeout_s: float = UP_S) -> str:
        done = subprocess.run(
            [*self.command, "--project-name", self.project, "--file", str(_FILE), *arguments],
            env=child_environment(**self.environment),
            cwd=_FILE.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
        return done.stdout

    def up(self) -> None:
        """Start what does not run; each service after what it depends on."""
        if self.engine == "docker":
            self("up", "--detach", "--no-recreate")
            return
        # podman before 4.6 knows no conditions, so they are waited for here
        for service in in_order():
            for other in services()[service].get("depends_on", {}):
                self.wait_healthy(other)
            self("up", "--detach", "--no-recreate", "--no-deps", service)

    def wait_healthy(self, service: str) -> None:
        """Until a service is what the file wants."""
        wait_for(lambda: self.problem(service) is None, timeout_s=UP_S)

    def containers(self, service: str) -> list[Container]:
        """All of a service, the ended ones too, by name."""
        label = "label=com.docker.compose"
        filters = (f"{label}.project={self.project}", f"{label}.service={service}")
        listed = self._ask("ps", "--all", "--quiet", *(f"--filter={value}" for value in filters))
        found = json.loads(self._ask("inspect", *listed.split())) if listed.split() else []
        return sorted(map(_container, found), key=lambda container: container.name)

    def run(
        self, service: str, *command: str, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A command in the first container of a service."""
        return self.run_in(self.containers(service)[0], *command, timeout_s=timeout_s)

    def run_in(
        self, container: Container, *command: str, timeout_s: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """A command in a container."""
        return subprocess.run(
            [self.engine, "exec", container.name, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    def logs(self, service: str) -> str:
        """What the containers of a service have said."""
        done = [
            subprocess.run(
                [self.engine, "logs", container.name], capture_output=True, text=True, check=False
            )
            for container in self.containers(service)
        ]
        return "".join(one.stdout + one.stderr for one in done)

    def problem(self, service: str) -> str | None:
        """Why a service is not what the file wants; none if it is."""
        wanted = services()[service]
        found = self.containers(service)
        if len(found) < wanted.get("deploy", {}).get("replicas", 1):
            return f"{service}: {len(found)} containers"
        for container in found:
            if wanted["restart"] == "on-failure":
                if container.status != "exited" or container.exit_code:
                    return f"{container.name} is {container.status} ({container.exit_code})"
            elif not container.running:
                return f"{container.name} is {container.status}"
        # asked here: engines without systemd do not ask by themselves
        kind, *check = wanted.get("healthcheck", {}).get("test", ["NONE"])
        if kind == "NONE":
            return None
        asked = (*(["sh", "-c"] if kind == "CMD-SHELL" else []), *check)
        for container in found:
            done = self.run_in(container, *asked)
            if done.returncode:
                return f"{container.name}: {done.stderr[-200:]}"
        return None

    def _ask(self, *arguments: str) -> str:
        return subprocess.run(
            [self.engine, *arguments], capture_output=True, text=True, check=True, timeout=120
        ).stdout


def _container(found: dict[str, Any]) -> Container:
    networks = found["NetworkSettings"].get("Networks") or {}
    return Container(
        name=found["Name"].lstrip("/"),
        pid=found["State"]["Pid"],
        status=found["State"]["Status"],
        exit_code=found["State"]["ExitCode"],
        address=next((one["IPAddress"] for one in networks.values()), ""),
    )


@functools.cache
def services() -> dict[str, Any]:
    """Those of the file, by name."""
    loaded: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))["services"]
    return loaded


def in_order() -> list[str]:
    """All services, each after those that it depends on."""
    graph = {name: set(one.get("depends_on", {})) for name, one in services().items()}
    return list(TopologicalSorter(graph).static_order())


@dataclass(frozen=True)
class ComposeStack(Stack):
    """What the tests of the stack ask for, from containers."""

    compose: Compose

    def run(self, *module: str) -> subprocess.CompletedProcess[str]:
        return self.compose.run("prefect-worker", "python", "-m", *module)

    @property
    def code(self) -> str:
        baked = self.compose.run("prefect-worker", "printenv", "IMAGE_COMMIT").stdout.strip()
        assert baked
        return baked

    def data_seen_by_flows(self, data: Path) -> str:
        assert str(data) == self.compose.environment["MIRNET_DATA"]
        return DATA

    @property
    def losable(self) -> tuple[str, ...]:
        """Not the worker: its flow runs are processes of its container and end with it."""
        return ("ray-node", "mlflow", "prefect-server")

    def identities(self) -> dict[str, object]:
        return {
            name: [container.pid for container in self.compose.containers(name)]
            for name in services()
        }

    def up_again(self) -> None:
        self.compose.up()
        self.wait_healthy()

    def lose(self, service: str) -> None:
        """A container's first process is killed, and with it all of the container."""
        container = self.compose.containers(service)[0]
        os.kill(container.pid, signal.SIGKILL)

        def again() -> bool:
            now = self.compose.containers(service)[0]
            return now.pid not in (0, container.pid) and self.compose.problem(service) is None

        wait_for(again, timeout_s=300)

    def wait_healthy(self) -> None:
        for name in services():
            self.compose.wait_healthy(name)


def command() -> tuple[str, ...]:
    """How compose is called here; skips the test where it cannot be."""
    given = os.environ.get("COMPOSE")
    if given:
        return tuple(shlex.split(given))
    if shutil.which("docker"):
        server = ["docker", "version", "--format={{.Server.Version}}"]
        known = [["docker", "compose", "version"], server]
        if all(subprocess.run(one, capture_output=True).returncode == 0 for one in known):
            return ("docker", "compose")
    if shutil.which("podman-compose"):
        return ("podman-compose",)
    pytest.skip("no container engine: neither docker compose with its daemon nor podman-compose")


def _engine(called: tuple[str, ...], image: str) -> str:
    engine = "docker" if Path(called[0]).name.startswith("docker") else "podman"
    found = subprocess.run([engine, "image", "inspect", image], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"{engine} has no image {image}: make image")
    if os.geteuid() != 0:
        pytest.skip("killing a container from its host needs root")
    return engine


@contextmanager
def compose_stack(folder: Path, data: Path) -> Iterator[ComposeStack]:
    """A stack of containers with volumes of its own, removed at the end."""
    called = command()
    image = os.environ.get("MIRNET_IMAGE", "mirnet:cpu")
    engine = _engine(called, image)
    made = subprocess.run(
        [PROJECT / "infra/compose-env.sh"], capture_output=True, text=True, check=True
    ).stdout
    secrets = dict(line.split("=") for line in made.splitlines())
    ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
    values = secrets | {f"{_PORTS[name]}_PORT": str(port) for name, port in ports.items()}
    values |= {"MIRNET_DATA": str(data), "MIRNET_IMAGE": image}
    compose = Compose(called, engine, f"mirnet-test-{os.getpid()}", values)
    fields = {
        _SECRETS.get(name, name.lower().removesuffix("_password")): value
        for name, value in secrets.items()
    }
    stack = ComposeStack(
        home=StackPaths(folder),
        plan=StackPlan(
            stack_id=compose.project,
            project=PROJECT,
            database="postgres",
            ports=ports,
            run_dir=folder,
        ),
        secrets=Secrets(**fields),
        own=True,
        compose=compose,
    )
    try:
        stack.up_again()
        yield stack
    finally:
        _keep_logs(compose)
        compose("down", "--volumes")


def _keep_logs(compose: Compose) -> None:
    """The end of each log, for whoever looks for the reason of a failure."""
    for name in services():
        print(f"== {name}\n{compose.logs(name)[-1500:]}")
