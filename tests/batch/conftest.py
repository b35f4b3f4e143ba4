"""Places on a real S3 server."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.config import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(workspace=tmp_path / "workspace", lease_s=5)


@pytest.fixture(params=["local", "s3"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """Source and target, both local or both on S3."""
    if request.param == "local":
        (tmp_path / "source").mkdir()
        return str(tmp_path / "source"), str(tmp_path / "target")
    base = request.getfixturevalue("s3")
    return f"{base}/source", f"{base}/target"
