"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirnet.atomic import replacing, write_atomically


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_text_and_bytes_arrive_and_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.json"
    assert write_atomically(path, "ä\n") == path
    assert path.read_bytes() == b"\xc3\xa4\n"
    write_atomically(path, b"\x00new")
    assert path.read_bytes() == b"\x00new"
    assert list(path.parent.iterdir()) == [path]


def test_an_error_leaves_what_stood_there_and_nothing_else(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "kept", "old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as fresh:
        fresh.write_text("half")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == {"kept": "old"}


def test_a_name_as_long_as_the_file_system_takes(tmp_path: Path) -> None:
    assert write_atomically(tmp_path / ("n" * 255), "x").read_text() == "x"


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "found"), [(None, 0o640), (0o600, 0o600), (0o644, 0o644)])
def test_permissions(tmp_path: Path, mode: int | None, found: int) -> None:
    path = write_atomically(tmp_path / "file", "x", mode=mode)
    assert path.stat().st_mode & 0o777 == found
