from __future__ import annotations

import subprocess
from pathlib import Path

from mirnet.tracking.code import git_changes


def git(folder: Path, *words: str) -> None:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True)


def test_changes_since_the_commit(tmp_path: Path) -> None:
    assert git_changes(tmp_path) is None, "no repository"
    git(tmp_path, "init", "-q")
    assert git_changes(tmp_path) is None, "no commit"
    (tmp_path / "a b.py").write_text("1")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("not tracked")
    assert git_changes(tmp_path / "model") == "none"

    (tmp_path / "a b.py").write_text("2")
    changed = git_changes(tmp_path / "model")
    assert changed and changed.startswith("1 (sha256 ") and changed.endswith("): a b.py")
    (tmp_path / "a b.py").write_text("3")
    assert git_changes(tmp_path) not in (changed, "none"), "by content"
