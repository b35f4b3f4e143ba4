"""Dockerfile and compose.yaml, as far as they can be checked without a container engine."""

from __future__ import annotations

import fnmatch
import os
import re
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from mirnet.config import Settings, engine_defaults
from mirnet.stack.plan import BUCKETS

SETTINGS = {f"MIRNET_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> list[str]:
    text = (root / "infra/docker/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((root / "infra/compose.yaml").read_text("utf-8"))
    return loaded


def test_each_image_ends_as_a_user_without_rights(dockerfile: list[str]) -> None:
    users: dict[str, str | None] = {}
    stage = ""
    for line in dockerfile:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            stage = match[2]
            users[stage] = users.get(match[1])
        elif line.startswith("USER "):
            users[stage] = line.split()[1]
    assert users["cpu"] == users["gpu"] == "10001:10001"


def test_bases_are_pinned_and_stages_exist(dockerfile: list[str]) -> None:
    assert re.fullmatch(r"ARG PYTHON_IMAGE=python:3\.11\.\d+-slim-\w+", dockerfile[0])
    stages: set[str] = set()
    for line in dockerfile:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            assert match[1] in stages or match[1] == "${PYTHON_IMAGE}"
            stages.add(match[2])
        if match := re.search(r"COPY --from=(\S+)", line):
            assert match[1] in stages


def test_what_the_image_copies_is_there_and_not_ignored(root: Path, dockerfile: list[str]) -> None:
    kept = [
        line[1:]
        for line in (root / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    ]
    copied = set()
    for line in dockerfile:
        if line.startswith("COPY ") and "--from" not in line:
            copied |= {word for word in line.split()[1:-1] if not word.startswith("--")}
    assert {"locks", "mirnet", "flows", "prefect.yaml"} <= copied
    for name in copied:
        assert (root / name).exists(), name
        assert any(fnmatch.fnmatch(f"{name}/", f"{pattern}/*") for pattern in kept), name


def test_the_image_resolves_nothing(dockerfile: list[str]) -> None:
    installs = [part for line in dockerfile for part in line.split("&&") if "pip install" in part]
    assert len(installs) == 1
    assert all("--no-deps" in part for part in installs)


def _lines_of(stage: str, dockerfile: list[str]) -> list[str]:
    """What builds a stage, from the base image on."""
    lines: dict[str, list[str]] = {}
    name = ""
    for line in dockerfile:
        if match := re.fullmatch(r"FROM (\S+) AS (\S+)", line):
            name = match[2]
            lines[name] = list(lines.get(match[1], []))
        elif name:
            lines[name].append(line)
    return lines[stage]


_FAKE_PIP = """#!/bin/sh
case "$*" in
*"index versions torch") echo "Available versions: {version}" ;;
*--requirement*) for last; do :; done; cat "$last" >> {log} ;;
esac
"""


def test_the_gpu_target_installs_exactly_its_lock(
    root: Path, dockerfile: list[str], tmp_path: Path
) -> None:
    """By the command of its Dockerfile, with the build of torch that build.sh asks for."""
    lines = [line for line in _lines_of("gpu", dockerfile) if line.startswith("RUN ")]
    locked, wheel = (line for line in lines if re.search(r"pip install|install\.sh|uv ", line))
    assert wheel.endswith("pip install --no-deps --no-index /wheel/*.whl")
    assert locked == "RUN /app/locks/install.sh /opt/mirnet/bin/python"

    lock = (root / "locks/cuda.lock").read_text("utf-8")
    (version,) = re.findall(r"^torch==(\S+)", lock, re.M)
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(_FAKE_PIP.format(version=version, log=log), encoding="utf-8")
    python.chmod(0o755)
    command = locked.removeprefix("RUN ").replace("/app", str(root)).split()
    subprocess.run([command[0], str(python)], env=os.environ | {"TORCH_BUILD": "cuda"}, check=True)
    assert log.read_text("utf-8") == lock


def test_a_cached_layer_is_of_its_own_commit(dockerfile: list[str]) -> None:
    """buildah 1.28 compares the value of an argument only where a command uses it."""
    stated = [n for n, line in enumerate(dockerfile) if "IMAGE_COMMIT=$" in line.replace("{", "")]
    declared = dockerfile.index("ARG IMAGE_COMMIT")
    used = dockerfile.index('RUN : "${IMAGE_COMMIT}"')
    assert declared < used < min(stated)
    assert not any(line.startswith("FROM") for line in dockerfile[declared : max(stated)])


def test_engines_in_the_image_behave_as_on_a_machine(dockerfile: list[str]) -> None:
    """No usage reports, a heartbeat that the automations wait for, logs that reach Prefect.

    A flow run of Kubernetes imports Prefect before our code could set anything.
    """
    given = set(" ".join(line for line in dockerfile if line.startswith("ENV ")).split())
    local = {"RAY_ENABLE_UV_RUN_RUNTIME_ENV", "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS"}
    for name, value in engine_defaults().items():
        assert name in local or f"{name}={value}" in given, name


def test_every_secret_of_compose_is_generated(root: Path) -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?\}", (root / "infra/compose.yaml").read_text("utf-8")))
    made = subprocess.run(
        [root / "infra/compose-env.sh"], capture_output=True, text=True, check=True
    ).stdout
    values = dict(line.split("=") for line in made.splitlines())
    assert set(values) == wanted
    assert all(re.fullmatch(r"[0-9a-f]{64}", value) for value in values.values())
    assert len(set(values.values())) == len(values)


def test_references_inside_compose_hold(root: Path, compose: dict[str, Any]) -> None:
    services = compose["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", {})) <= set(services), name
        for volume in service.get("volumes", []):
            source = volume.rsplit(":", 2)[0] if volume.endswith(":ro") else volume.split(":")[0]
            if source.startswith("./"):
                assert (root / "infra" / source).is_file(), source
            elif not source.startswith("${"):
                assert source in compose["volumes"], source
        mirnet_names = {key for key in service.get("environment", {}) if key.startswith("MIRNET_")}
        assert mirnet_names <= SETTINGS, name


def test_addresses_inside_compose_match_what_listens(compose: dict[str, Any]) -> None:
    services = compose["services"]
    listening = {name: _ports(service) for name, service in services.items()}
    listening["postgres"] = {5432}
    seen = 0
    for service in services.values():
        for value in map(str, service.get("environment", {}).values()):
            url = urlsplit(value if "://" in value else f"tcp://{value}")
            plain = re.sub(r"\$\{\w+:\?\}", "x", url.netloc)
            host, _, port = plain.rpartition("@")[2].partition(":")
            if port.isdigit() and host in services:
                assert int(port) in listening[host], value
                seen += 1
    assert seen >= 8


def _ports(service: dict[str, Any]) -> set[int]:
    words = [str(word) for word in service.get("command", [])]
    return {int(m[1]) for w in words if (m := re.fullmatch(r"--?[\w.-]*port=(\d+)", w))}


def test_compose_listens_on_loopback_and_drops_rights(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["cap_drop"] == ["ALL"]
        assert service["read_only"] is True
        assert "latest" not in service["image"]


def test_compose_has_the_buckets_of_the_stack(compose: dict[str, Any]) -> None:
    words = compose["services"]["s3"]["command"]
    assert f"-bucket={','.join(BUCKETS)}" in words


def test_images_of_the_services_can_be_given_by_digest(compose: dict[str, Any]) -> None:
    images = {service["image"] for service in compose["services"].values() if "image" in service}
    assert all(re.fullmatch(r"\$\{[A-Z]+_IMAGE:-[a-z]+:\S+\}", image) for image in images), images


def test_who_logs_in_to_mlflow_has_an_account(compose: dict[str, Any]) -> None:
    """The server with users knows nobody but its administrator until somebody is made."""
    services = compose["services"]
    users = {
        name
        for name, service in services.items()
        if "MLFLOW_TRACKING_USERNAME" in service.get("environment", {})
    }
    made = services["mlflow-user"]["environment"]
    client = services["prefect-worker"]["environment"]
    assert services["mlflow-user"]["command"][-1] == "mirnet.stack.mlflow_user"
    for name in users:
        for variable in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            assert services[name]["environment"][variable] == made[variable]
    assert client["MIRNET_TRACKING_URI"] == made["MIRNET_TRACKING_URI"]
    assert "mlflow-user" in services["prefect-worker"]["depends_on"]
