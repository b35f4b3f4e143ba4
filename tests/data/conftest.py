"""Data sets to break: small real photographs, darkened, in the LoL layout."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirnet.data.samples import make_sample_data
from mirnet.data.versioning import init_workspace
from mirnet.storage.s3server import S3Server


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("samples") / "data"
    make_sample_data(root, seed=3, num_train=12, num_eval=4, size=128)
    return root


@pytest.fixture
def dataset(pristine: Path, tmp_path: Path) -> Path:
    """A copy that a test may break."""
    root = tmp_path / "data"
    shutil.copytree(pristine, root)
    return root


@pytest.fixture
def other(workspace: Path, tmp_path: Path) -> Path:
    """A DVC workspace with the pin of ``workspace``, which the module has, and no data."""
    root = tmp_path / "there" / "data"
    init_workspace(root.parent)
    shutil.copy(workspace.parent / "data.dvc", root.parent)
    return root


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """An S3 server with a bucket for DVC."""
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=("data",)) as running:
        yield running
        running.kill()
