"""Leases of the batch tests are short."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "workspace", lease_s=5)
