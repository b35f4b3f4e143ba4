"""The state of the code that a run was started from, beyond its commit."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

CLEAN = "none"
_MOST_NAMED = 10


def git_changes(folder: Path) -> str | None:
    """Changes of tracked files since the commit, of the whole repository of ``folder``.

    Returns:
        Number, digest of the difference, and names: ``2 (sha256 0a1b2c3d4e5f): a.py, b.py``;
        ``none`` without changes. None outside of git, or before the first commit.
    """
    try:
        # no program of the user's configuration takes part
        difference = _git(folder, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv")
        names = _git(folder, "diff", "HEAD", "--name-only", "-z").decode(errors="replace")
    except (OSError, subprocess.SubprocessError):
        return None
    changed = [name for name in names.split("\0") if name]
    if not changed:
        return CLEAN
    digest = hashlib.sha256(difference).hexdigest()[:12]
    more = ", ..." if len(changed) > _MOST_NAMED else ""
    return f"{len(changed)} (sha256 {digest}): {', '.join(changed[:_MOST_NAMED])}{more}"


def _git(folder: Path, *words: str) -> bytes:
    command = ["git", "-C", str(folder), *words]
    return subprocess.run(command, capture_output=True, timeout=30, check=True).stdout
