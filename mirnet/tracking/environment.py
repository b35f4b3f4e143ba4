"""The packages of a run: the hash of the lock, or of the installed packages without one."""

from __future__ import annotations

import hashlib
import re
from functools import cache
from importlib import metadata
from pathlib import Path

LOCK_TAG, STRAY_TAG, PACKAGES_TAG = "mirnet.lock", "mirnet.lock_strays", "mirnet.packages"
_LOCKS = "locks"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;]+)(?: ; ([^\\]+))?")
_MOST_NAMED = 10


@cache
def environment_tags() -> dict[str, str | None]:
    """Tags for a run, from the locks beside the package or in the working folder.

    ``mirnet.lock`` is the SHA-256 of the lock of this torch: with CUDA or without.
    ``mirnet.lock_strays`` counts and names installed packages whose version differs from the
    lock; absent if there are none. Without a lock ``mirnet.packages`` is the SHA-256 of all
    installed names and versions.
    """
    for folder in (Path(__file__).parents[2], Path.cwd()):
        lock = folder / _LOCKS / f"{_build()}.lock"
        if lock.is_file():
            return lock_tags(lock)
    installed = {f"{d.name.lower()}=={d.version}" for d in metadata.distributions()}
    return {PACKAGES_TAG: hashlib.sha256("\n".join(sorted(installed)).encode()).hexdigest()}


def lock_tags(lock: Path) -> dict[str, str | None]:
    """Hash of a lock and the installed packages whose version differs from it."""
    content = lock.read_bytes()
    strays = [
        f"{name} {installed}"
        for name, pinned in _pins(content.decode("utf-8"))
        if (installed := _installed(name)) is not None and installed != pinned
    ]
    named = f"{len(strays)}: {', '.join(strays[:_MOST_NAMED])}" if strays else None
    return {LOCK_TAG: hashlib.sha256(content).hexdigest(), STRAY_TAG: named}


def _build() -> str:
    """The lock that this environment was made from."""
    import torch

    return "cpu" if torch.version.cuda is None else "cuda"


def _pins(text: str) -> list[tuple[str, str]]:
    """Names and versions for this Python and system."""
    from packaging.markers import Marker  # an edge machine does without: docs/installing.md

    found = (match for line in text.splitlines() if (match := _PIN.match(line)))
    return [(m[1], m[2]) for m in found if m[3] is None or Marker(m[3]).evaluate()]


def _installed(name: str) -> str | None:
    """The version without the suffix of a build such as +cpu, which locks do not have."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None
