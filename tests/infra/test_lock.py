"""The locks are the whole environment: that of the image, and a checkout's with its tools."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sysconfig
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

_OURS = {"mirnet-pipeline", "pip"}
BUILD = "cpu" if torch.version.cuda is None else "cuda"
_LINE = re.compile(
    r"^(?P<name>[a-z0-9.-]+)==(?P<version>[\w.!+]+)(?: ; (?P<marker>[^\\]+?))?"
    r"(?P<hashes>(?: \\\n    --hash=sha256:[0-9a-f]{64})+)$",
    re.M,
)
# what torch's default build for Linux asks for beyond its CPU build, as its metadata say
TORCH = "2.13.0"
TORCH_ON_CUDA = {
    "cuda-bindings",
    "cuda-toolkit",
    "nvidia-cudnn-cu13",
    "nvidia-cusparselt-cu13",
    "nvidia-nccl-cu13",
    "nvidia-nvshmem-cu13",
    "triton",
}
# the wheels of both builds for Python 3.11 on x86-64
DEFAULT_WHEEL = "60fcdcb2f3876e21146cb4524ef06397d727ca9ad5f020818547e25075fe3cb7"
CPU_WHEEL = "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"


@dataclass(frozen=True)
class Pin:
    """One entry of a lock."""

    name: str
    version: str
    marker: str | None
    hashes: frozenset[str]

    @property
    def here(self) -> bool:
        """Whether this Python on this system installs it."""
        return self.marker is None or Marker(self.marker).evaluate()


Lock = dict[str, Pin]


@pytest.fixture(scope="module")
def read(root: Path) -> Callable[[str], list[Pin]]:
    """All entries of a lock of that name, also those of other Pythons and systems."""

    def entries(name: str) -> list[Pin]:
        text = (root / "locks" / f"{name}.lock").read_text(encoding="utf-8")
        found = [
            Pin(m["name"], m["version"], m["marker"], frozenset(re.findall(r"\w{64}", m["hashes"])))
            for m in _LINE.finditer(text)
        ]
        # every line is understood: a comment, or of an entry with its hashes
        assert not [line for line in _LINE.sub("", text).splitlines() if line and line[0] != "#"]
        return found

    return entries


@pytest.fixture(scope="module")
def locks(read: Callable[[str], list[Pin]]) -> dict[str, Lock]:
    """What each lock installs here."""
    return {name: {p.name: p for p in read(name) if p.here} for name in ("cpu", "cuda", "dev")}


def runtime_requirements(root: Path) -> list[Requirement]:
    """Those of a plain install and of every extra but that of development."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {k: v for k, v in project["optional-dependencies"].items() if k != "dev"}
    return [Requirement(line) for line in sum(extras.values(), project["dependencies"])]


def closure(wanted: list[Requirement], lock: Lock) -> tuple[set[str], list[str]]:
    """What the requirements reach by the metadata of installed packages, and what is not met."""
    reached: set[str] = set()
    problems: list[str] = []
    done: set[tuple[str, str]] = set()
    queue = list(wanted)
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        pin = lock.get(name)
        if pin is None or not requirement.specifier.contains(pin.version, prereleases=True):
            problems.append(f"{requirement} against {pin}")
            continue
        reached.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in done:
                done.add((name, extra))
                queue += required(name, extra)
    return reached, problems


def required(name: str, extra: str) -> list[Requirement]:
    lines = importlib.metadata.requires(name) or []
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.marker is None or r.marker.evaluate({"extra": extra})]


def test_every_requirement_of_every_locked_package_is_locked(
    root: Path, locks: dict[str, Lock]
) -> None:
    reached, problems = closure(runtime_requirements(root), locks[BUILD])
    assert not problems
    # and nothing else is: development tools are not in the image
    assert set(locks[BUILD]) == reached


def test_the_locks_differ_in_what_torch_needs_for_cuda_only(
    read: Callable[[str], list[Pin]],
) -> None:
    cpu, cuda = read("cpu"), read("cuda")
    assert set(cpu) < set(cuda)
    more = {pin.name: pin for pin in cuda if pin not in cpu}
    assert set(more) >= TORCH_ON_CUDA
    rest = set(more) - TORCH_ON_CUDA
    # libraries by way of cuda-toolkit and of each other
    assert all(name.startswith(("nvidia-", "cuda-")) for name in rest)
    assert {"nvidia-cublas", "nvidia-cuda-runtime", "nvidia-cuda-nvrtc", "nvidia-cufft"} <= rest
    assert all("linux" in (pin.marker or "") for pin in more.values())


@pytest.mark.parametrize("name", ["cpu", "cuda"])
def test_torch_is_admitted_in_both_builds(name: str, read: Callable[[str], list[Pin]]) -> None:
    (pin,) = (pin for pin in read(name) if pin.name == "torch")
    assert pin.version == TORCH, "a new torch: read its metadata and hashes again"
    assert {DEFAULT_WHEEL, CPU_WHEEL} <= pin.hashes


def test_the_listed_wheels_of_the_cpu_build_are_those_of_the_locked_torch(
    root: Path, read: Callable[[str], list[Pin]]
) -> None:
    (pin,) = (pin for pin in read("cpu") if pin.name == "torch")
    lines = (root / "locks/torch-cpu.sha256").read_text(encoding="utf-8").splitlines()
    listed = {wheel: digest for digest, wheel in (line.split("  ") for line in lines)}
    assert set(listed.values()) <= pin.hashes
    for python in ("cp311", "cp312", "cp313"):
        for machine in ("x86_64", "aarch64"):
            wheel = f"torch-{TORCH}+cpu-{python}-{python}-manylinux_2_28_{machine}.whl"
            assert wheel in listed


def test_runtime_and_development_are_apart(
    root: Path, read: Callable[[str], list[Pin]], locks: dict[str, Lock]
) -> None:
    assert not {pin.name for pin in read("dev")} & {pin.name for pin in read("cuda")}
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [Requirement(line) for line in project["optional-dependencies"]["dev"]]
    reached, problems = closure(wanted, locks[BUILD] | locks["dev"])
    assert not problems
    assert set(locks["dev"]) <= reached
    assert {"pytest", "mypy", "ruff", "moto"} <= set(locks["dev"])


def test_no_installed_package_is_outside_the_locks(locks: dict[str, Lock]) -> None:
    known = locks[BUILD] | locks["dev"]
    installed = {
        canonicalize_name(found.metadata["Name"]): found.version.partition("+")[0]
        # not what setuptools carries inside itself, which other tests may have put on the path
        for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    outside = {
        name: version
        for name, version in installed.items()
        if name not in _OURS
        and (name not in known or Version(known[name].version) != Version(version))
    }
    assert not outside
    assert set(known) <= set(installed)
    assert len(installed) > 200


@pytest.mark.parametrize("name", ["cpu", "cuda", "dev"])
def test_a_lock_names_no_place(name: str, root: Path) -> None:
    text = (root / "locks" / f"{name}.lock").read_text(encoding="utf-8")
    assert not re.search(r"://|file:|--find-links|index-url| @ ", text)


def test_the_bounds_that_two_engines_need_stay(root: Path, locks: dict[str, Lock]) -> None:
    """prefect 3.8 against newer fastapi and sqlalchemy: pyproject.toml has the reasons."""
    bounds = {r.name: r.specifier for r in runtime_requirements(root)}
    assert not bounds["fastapi"].contains("0.151.0")
    assert not bounds["sqlalchemy"].contains("2.1.0")
    for name in ("fastapi", "sqlalchemy"):
        assert bounds[name].contains(locks[BUILD][name].version)


def test_make_and_image_install_by_the_same_script(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    dockerfile = (root / "infra/docker/Dockerfile").read_text(encoding="utf-8")
    assert "locks/install.sh $(CURDIR)/$(BIN)/python dev" in makefile
    assert "RUN /app/locks/install.sh /opt/mirnet/bin/python\n" in dockerfile
    script = (root / "locks/install.sh").read_text(encoding="utf-8")
    assert "--require-hashes" in script and "--no-deps" in script
    assert script.count("pip check") == 2 and "import torch" in script


FAKE_PIP = """#!/bin/sh
case "$*" in
*"index versions torch") echo "Available versions: 2.14.1, {versions}, 2.12.0" ;;
*--requirement*) for last; do :; done; grep '^torch==' "$last" >> {log}; echo "$last" >> {log} ;;
esac
"""


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (
            f"{TORCH}+cpu, {TORCH}",
            [f"torch=={TORCH}+cpu", "TEMPORARY", f"torch=={TORCH}", "cpu.lock"],
        ),
        (TORCH, [f"torch=={TORCH}", "cuda.lock"]),
    ],
)
def test_the_cpu_lock_is_taken_where_pip_is_offered_that_build(
    versions: str, expected: list[str], root: Path, tmp_path: Path
) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(FAKE_PIP.format(versions=versions, log=log), encoding="utf-8")
    python.chmod(0o755)
    subprocess.run([root / "locks/install.sh", python], check=True)
    lines = [line.removesuffix(" \\") for line in log.read_text(encoding="utf-8").splitlines()]
    told = ["TEMPORARY" if line.startswith("/") else line for line in lines]
    assert told == expected


@pytest.mark.parametrize(("wanted", "versions"), [("cpu", TORCH), ("cuda", f"{TORCH}+cpu")])
def test_the_other_build_of_torch_is_refused_before_anything_is_installed(
    wanted: str, versions: str, root: Path, tmp_path: Path
) -> None:
    python, log = tmp_path / "python", tmp_path / "log"
    python.write_text(FAKE_PIP.format(versions=versions, log=log), encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        [root / "locks/install.sh", python],
        env=os.environ | {"TORCH_BUILD": wanted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"TORCH_BUILD={wanted}" in done.stderr and "PIP_EXTRA_INDEX_URL" in done.stderr
    assert not log.exists()


def test_a_pip_that_cannot_ask_ends_the_installation(root: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'no network' >&2\nexit 1\n", encoding="utf-8")
    python.chmod(0o755)
    done = subprocess.run(
        [root / "locks/install.sh", python], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "no network" in done.stderr
