"""``mirnet --version``."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def describe() -> str:
    """Version, and commit where it is known: ``mirnet 0.2.0, commit 1b2c3d4``."""
    import mirnet

    commit = _of_checkout(_ROOT) or _of_installation()
    return f"mirnet {mirnet.__version__}" + (f", commit {commit}" if commit else "")


def _of_checkout(root: Path) -> str | None:
    """The commit of the checkout that the code runs from; ``-modified`` with local changes."""
    # a package in site-packages may lie in somebody else's repository
    if not ((root / ".git").exists() and (root / "pyproject.toml").is_file()):
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=-modified"]
    try:
        done = subprocess.run(
            [*command, "--exclude=*"], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git, no commit, or a repository that it refuses
    return done.stdout.strip()


def _of_installation() -> str | None:
    """The commit that pip installed from (``pip install git+https://...``)."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        text = distribution("mirnet-pipeline").read_text("direct_url.json")
    except PackageNotFoundError:
        return None
    commit = json.loads(text or "{}").get("vcs_info", {}).get("commit_id")
    return str(commit) if commit else None
