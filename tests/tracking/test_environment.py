from __future__ import annotations

import hashlib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mirnet.tracking import environment

ROOT = Path(__file__).parents[2]
BUILD = "cpu" if torch.version.cuda is None else "cuda"


@pytest.fixture(autouse=True)
def _asked_anew() -> None:
    environment.environment_tags.cache_clear()


def test_the_lock_of_the_project_is_named_by_its_hash() -> None:
    expected = hashlib.sha256((ROOT / "locks" / f"{BUILD}.lock").read_bytes()).hexdigest()
    tags = environment.environment_tags()
    assert tags["mirnet.lock"] == expected
    assert "mirnet.packages" not in tags


def test_what_is_not_as_the_lock_pins_it_is_told(tmp_path: Path) -> None:
    theirs, numpy = (metadata.version(name).partition("+")[0] for name in ("torch", "numpy"))
    lock = tmp_path / "cpu.lock"
    lock.write_text(
        f"# a comment\ntorch=={theirs} \\\n    --hash=sha256:00\nnumpy=={numpy}\n"
        "numpy==0.2 ; python_full_version < '3' \\\n    --hash=sha256:00\nnot-installed-here==1.0\n"
    )
    assert environment.lock_tags(lock)["mirnet.lock_strays"] is None
    lock.write_text(f"torch=={theirs}\nnumpy==0.1 ; python_full_version >= '3' \\\n")
    assert environment.lock_tags(lock)["mirnet.lock_strays"] == f"1: numpy {numpy}"


def test_without_a_lock_the_installed_packages_count_under_their_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "a" / "b" / "environment.py"))
    tags = environment.environment_tags()
    assert set(tags) == {"mirnet.packages"} and len(str(tags["mirnet.packages"])) == 64
    environment.environment_tags.cache_clear()
