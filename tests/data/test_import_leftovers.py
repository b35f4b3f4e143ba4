"""What lies between the pairs and is none: left by systems, pipes, links that come late."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import pytest

from mirnet.data.importer import import_data
from mirnet.data.sources import open_source

LEFT = (
    "low/._1.png",
    "low/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
    "#recycle/low/1.png",
    ".Trash-1000/files/low/1.png",
    "high/.thumbnails/1.png",
    "$RECYCLE.BIN/high/1.png",
    "high/lost+found/1.png",
    "high/~$1.png",
)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two pairs in folders low and high."""
    for side, level in (("low", 40), ("high", 200)):
        (tmp_path / "in" / side).mkdir(parents=True)
        for number in (1, 2):
            pixels = np.random.default_rng(number).integers(0, level, (32, 32, 3), dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / "in" / side / f"{number}.png")
    return tmp_path / "in"


def test_what_systems_leave_is_passed_over_as_by_enhance(pairs: Path, tmp_path: Path) -> None:
    for name in LEFT:
        (pairs / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(pairs / "low" / "1.png", pairs / name)
    os.mkfifo(pairs / "low" / "3.png")
    plan = import_data(pairs, tmp_path / "data")
    assert (len(plan.pairs), plan.unpaired, plan.ignored) == (2, (), ())


def test_a_folder_that_becomes_a_link_is_not_followed(pairs: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "1.png").write_bytes(b"secret")
    with open_source(pairs) as source:
        entries = {entry.path: entry for entry in source.entries()}
        shutil.rmtree(pairs / "low")
        (pairs / "low").symlink_to(tmp_path / "outside")
        (pairs / "high" / "1.png").unlink()
        (pairs / "high" / "1.png").symlink_to(tmp_path / "outside" / "1.png")
        for name in ("low/1.png", "high/1.png"):
            with pytest.raises(OSError, match="is a link"):
                source.copy(entries[PurePosixPath(name)], tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
