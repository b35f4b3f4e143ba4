"""What the checks of infra/ share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def lock() -> dict[str, str]:
    """Name -> version of what the image installs."""
    text = (ROOT / "locks/cpu.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9.-]+)==([^ ;]+)", text, re.M))


@pytest.fixture(scope="session")
def manifests() -> list[dict[str, Any]]:
    """Every Kubernetes object of base and gpu."""
    found: list[dict[str, Any]] = []
    for path in sorted((ROOT / "infra/kubernetes").glob("*/*.yaml")):
        if path.name != "kustomization.yaml":
            found += yaml.safe_load_all(path.read_text(encoding="utf-8"))
    return found
