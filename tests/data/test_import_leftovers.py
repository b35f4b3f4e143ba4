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


def interrupted(source: Path, destination: Path) -> None:
    """An import that ends after two pairs."""

    def stop(done: int, _: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_data(source, destination, on_pair=stop)


def gathered(destination: Path) -> dict[str, bytes]:
    files = (path for path in destination.rglob("*") if path.is_file())
    return {path.relative_to(destination).as_posix(): path.read_bytes() for path in files}


def wanted(source: Path) -> dict[str, bytes]:
    return {f"our485/{name}": content for name, content in gathered(source).items()}


def test_pairs_that_left_the_source_are_not_taken(pairs: Path, tmp_path: Path) -> None:
    interrupted(pairs, tmp_path / "data")
    for side in ("low", "high"):
        (pairs / side / "1.png").unlink()
    assert len(import_data(pairs, tmp_path / "data").pairs) == 1
    assert gathered(tmp_path / "data") == wanted(pairs)


@pytest.mark.parametrize("by", ["writing", "moving"])
def test_pictures_that_changed_are_taken_anew(pairs: Path, tmp_path: Path, by: str) -> None:
    interrupted(pairs, tmp_path / "data")
    picture, old = pairs / "low" / "1.png", (pairs / "low" / "1.png").stat()
    other = tmp_path / "other.png"
    other.write_bytes(picture.read_bytes()[:-1] + b"\0")
    if by == "writing":
        picture.write_bytes(other.read_bytes())
    else:
        other.replace(picture)
    os.utime(picture, ns=(old.st_atime_ns, old.st_mtime_ns))  # of the same size and time
    import_data(pairs, tmp_path / "data")
    assert gathered(tmp_path / "data") == wanted(pairs)


def test_only_what_is_planned_takes_its_place(pairs: Path, tmp_path: Path) -> None:
    interrupted(pairs, tmp_path / "data")
    staging = tmp_path / ".data.importing"
    for name in ("our485/low/9.png", "our485/low/.1.png.part", "eval15/low/1.png"):
        (staging / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).write_bytes(b"left")
    import_data(pairs, tmp_path / "data")
    assert gathered(tmp_path / "data") == wanted(pairs)
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["our485"]
