"""``mirnet enhance`` and ``open_enhancer`` with the packages that docs/installing.md lists."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile
import torch
from packaging.requirements import Requirement

from mirnet.images import read_rgb
from mirnet.models import build, save_model
from mirnet.models.mirnet.network import MIRNet

ROOT = Path(__file__).parents[1]
ENGINES = {"prefect", "ray", "mlflow", "dvc", "dvc-data", "dvc-objects", "great-expectations"}


def listed() -> dict[str, Requirement]:
    """What the page tells to install, by name."""
    page = (ROOT / "docs" / "installing.md").read_text("utf-8")
    section = page.split("## Only to enhance")[1].split("\n## ")[0]
    command = re.search(r"pip install ((?!--).*?)\nenv/bin/pip", section, re.S)
    assert command
    requirements = map(Requirement, command[1].replace("\\", " ").split())
    return {requirement.name: requirement for requirement in requirements}


def test_versions_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = {r.name: r for r in map(Requirement, project["dependencies"])}
    for name, requirement in listed().items():
        exact = str(declared[name].specifier).startswith("==")
        assert str(requirement.specifier) == (str(declared[name].specifier) if exact else "")


def test_the_listed_packages_are_what_enhancing_imports(tmp_path: Path) -> None:
    network = build("mirnet-xs", n_feat=8)
    assert isinstance(network, MIRNet)
    torch.nn.init.zeros_(network.conv_out.weight)  # gives its input: nothing that a guard refuses
    model = save_model(network, tmp_path / "model")
    # as training leaves it, so that inputs are compared with it
    histogram = {"edges": [0.0, 0.2, 1.0], "share": [0.5, 0.5]}
    (model / "profile.json").write_text(json.dumps({"luminance": histogram}))
    photos = tmp_path / "photos"
    photos.mkdir()
    pixels = np.random.default_rng(0).integers(0, 60, (24, 32, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "c.webp", "d.bmp", "e.tif"):
        PIL.Image.fromarray(pixels).save(photos / name)
    tifffile.imwrite(photos / "f.tif", pixels.astype(np.uint16) * 257, compression="zlib")

    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("edge_child.py")), *listed()],
        cwd=tmp_path,
        env=os.environ | {"MIRNET_COMPILE": "false", "COLUMNS": "100"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["codes"] == {"file": 0, "folder": 0, "again": 0, "registry": 2, "base": 0}
    told = [line for line in done.stderr.splitlines() if not line.startswith("enhancing: ")]
    assert told == ["mirnet: cryptography: not installed; pip install mirnet-pipeline"]
    assert not ENGINES & set(found["installed"]), "or nothing would be hidden"
    assert set(found["imported"]) == set(listed())
    assert np.array_equal(read_rgb(tmp_path / "a.png"), pixels)
    outputs = {path.name for path in (tmp_path / "bright").iterdir() if path.is_file()}
    assert outputs == {path.name for path in photos.iterdir()}
