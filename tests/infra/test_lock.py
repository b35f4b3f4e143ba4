"""The lock is the whole environment."""

from __future__ import annotations

import importlib.metadata
import re
import sysconfig
from pathlib import Path

_OURS = {"mirnet-pipeline", "pip"}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_no_installed_package_is_outside_the_lock(lock: dict[str, str]) -> None:
    locked = {_normal(name): version for name, version in lock.items()}
    installed = {
        _normal(found.metadata["Name"]): found.version.partition("+")[0]
        # not what setuptools carries inside itself, which other tests may have put on the path
        for found in importlib.metadata.distributions(path=[sysconfig.get_path("purelib")])
    }
    outside = {
        name: version
        for name, version in installed.items()
        if name not in _OURS and locked.get(name) != version
    }
    assert not outside
    assert len(installed) > 200


def test_the_lock_pins_exactly_and_names_no_place(root: Path) -> None:
    lines = (root / "requirements.lock").read_text(encoding="utf-8").splitlines()
    wrong = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[\w.!]+", line)]
    assert not wrong
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0].lower())
