"""A file is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirnet.atomic import create_part, remove_part, replacing, write_atomically


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


def test_what_killed_processes_left_is_removed_and_what_is_in_use_stays(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom mirnet.atomic import replacing\n"
        "with replacing(Path(sys.argv[1]) / 'file') as fresh:\n"
        "    fresh.write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path]).returncode == -signal.SIGKILL
    earlier = tmp_path / f".mirnet-{'0a' * 8}.part"
    earlier.write_text("half")
    other = tmp_path / ".mirnet-notes"
    other.write_text("of a person")
    assert len(list(tmp_path.iterdir())) == 3
    with replacing(tmp_path / "slow") as fresh:
        path = write_atomically(tmp_path / "file", "whole")
        assert set(tmp_path.iterdir()) == {path, other, fresh}
    assert set(tmp_path.iterdir()) == {path, other, tmp_path / "slow"}


def test_links_and_pipes_with_such_a_name(tmp_path: Path) -> None:
    kept = write_atomically(tmp_path / "kept", "x")
    (tmp_path / ".mirnet-part-1").symlink_to(kept)
    os.mkfifo(tmp_path / ".mirnet-part-2")
    (tmp_path / ".mirnet-part-3").mkdir()
    for number in (1, 2, 3, 4):
        remove_part(tmp_path / f".mirnet-part-{number}")
    assert {path.name for path in tmp_path.iterdir()} == {"kept", ".mirnet-part-3"}
    assert kept.read_text() == "x"


def test_a_file_that_was_removed_before_its_lock_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, made = fcntl.flock, []

    def late(descriptor: int, operation: int) -> None:
        made.append(next(tmp_path.iterdir()))
        if len(made) == 1:
            made[0].unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    name, descriptor = create_part(tmp_path, mode=0o600)
    os.close(descriptor)
    assert len(set(made)) == 2 and [path.name for path in tmp_path.iterdir()] == [name]


def test_without_locks_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / ".mirnet-part-1").write_text("half")
    assert write_atomically(tmp_path / "file", "whole").read_text() == "whole"
    assert (tmp_path / ".mirnet-part-1").exists()


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize(("mode", "found"), [(None, 0o640), (0o600, 0o600), (0o644, 0o644)])
def test_permissions(tmp_path: Path, mode: int | None, found: int) -> None:
    path = write_atomically(tmp_path / "file", "x", mode=mode)
    assert path.stat().st_mode & 0o777 == found
