"""The stack that the tests of this folder go through: that of STACK_HOME, or one of their own.

``STACK=compose`` makes that of containers.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirnet.data.versioning import add, init_workspace
from mirnet.stack import control
from mirnet.stack.plan import StackPaths, load_plan
from tests.stack.compose_stack import compose_stack
from tests.stack.stack_client import PROJECT, Stack

UP_S = 600


def open_to_postgres(home: StackPaths) -> None:
    """The account of PostgreSQL must reach its files below pytest's private folders."""
    for folder in home.root.parents:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o711)


@pytest.fixture(scope="session")
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    if os.environ.get("STACK") == "compose":
        data: Path = request.getfixturevalue("data")
        with compose_stack(tmp_path_factory.mktemp("compose"), data) as containers:
            yield containers
        return
    given = os.environ.get("STACK_HOME")
    home = StackPaths(Path(given).resolve() if given else tmp_path_factory.mktemp("stack") / "home")
    if not given:
        open_to_postgres(home)
    control.up(home, project=PROJECT, timeout_s=UP_S, progress=lambda _: None)
    try:
        yield Stack(home, *load_plan(home), own=not given)
    finally:
        if not given:
            control.down(home)


@pytest.fixture(scope="session")
def data(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("site")
    init_workspace(root)
    subprocess.run(["cp", "-r", str(sample_dir), str(root / "data")], check=True)
    add(root / "data")
    return root / "data"
