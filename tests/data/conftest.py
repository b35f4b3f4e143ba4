"""Data sets to break: small real photographs, darkened, in the LoL layout."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from mirnet.data.samples import make_sample_data


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
