"""A real S3 server for the whole session, and places on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mirnet.batch.s3server import S3Server
from mirnet.config import Settings


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with S3Server(tmp_path_factory.mktemp("s3"), buckets=("test",)) as server:
        yield server
        server.kill()  # nothing in there to be kept


@pytest.fixture
def s3(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A fresh prefix on the server, with credentials in the environment."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://test/{uuid4().hex}"


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
