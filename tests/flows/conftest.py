"""A laptop with sample data under DVC, and the smallest recipe."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from mirnet.data.versioning import add, init_workspace

TINY = [
    "model.n_feat=8",
    "train.num_epochs=2",
    "train.steps_per_epoch=3",
    "train.batch_size=2",
    "train.patch_size=32",
    "evaluate.bootstrap_samples=100",
    "evaluate.baselines=[input, autocontrast]",
]


@dataclass(frozen=True)
class Site:
    """A laptop with data under DVC."""

    data: Path
    workspace: Path
    reports: Path

    def use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MIRNET_WORKSPACE", str(self.workspace))
        monkeypatch.setenv("MIRNET_REPORTS_DIR", str(self.reports))


@pytest.fixture(scope="module")
def site(sample_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Site:
    root = tmp_path_factory.mktemp("site")
    init_workspace(root)
    shutil.copytree(sample_dir, root / "data")
    add(root / "data")
    return Site(root / "data", root / "workspace", root / "reports")
