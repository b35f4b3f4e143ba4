from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch  # noqa: F401  sets up its loggers

from mirnet.config import Settings
from mirnet.results import DataVersion

# pytest listens to every level, and torch then writes thousands of records for an export
logging.getLogger("torch.__trace").propagate = False


@pytest.fixture
def store(empty_store: Path, settings: Settings) -> Settings:
    """Settings with a store of the test's own."""
    settings.workspace.mkdir(parents=True)
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    return settings


@pytest.fixture
def version() -> DataVersion:
    return DataVersion(
        path="somewhere/data",
        digest="d48f655e14b913db367785d6acd73c6a.dir",
        num_files=1000,
        size=348058979,
        status="clean",
        git_commit="abc123",
    )


@pytest.fixture
def versions(three_versions: Settings, settings: Settings) -> Settings:
    """A store of the test's own with versions 1 to 3; their artifacts are shared."""
    settings.workspace.mkdir(parents=True)
    shutil.copy(three_versions.workspace / "mlflow.db", settings.workspace / "mlflow.db")
    return settings
