"""Scenes that two sets share, found by content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.data.overlap import find_overlap
from mirnet.data.samples import PHOTOGRAPHS, photograph_path
from mirnet.data.scenes import TWIN, find_shared, find_twins
from mirnet.errors import DataError


def photo(number: int) -> Image.Image:
    return Image.open(photograph_path(PHOTOGRAPHS[number])).convert("RGB").resize((240, 180))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Five photographs as references; a set with three of them, changed, and with two others."""
    root = tmp_path_factory.mktemp("sets")
    train, test = root / "train", root / "test"
    for number in range(5):
        save(photo(number), train / f"our485/high/{number}.png")
        save(darkened(photo(number)), train / f"our485/low/{number}.png")
    save(photo(0), test / "Normal/a.bmp")  # the same pixels in another format
    save(photo(1).crop((10, 8, 236, 176)).resize((150, 110)), test / "Normal/b.jpg")
    save(darkened(photo(2)), test / "Low/c.jpg")  # its reference is not there
    for number in (5, 6):
        save(photo(number), test / f"Normal/{number}.png")
    (test / "Normal/broken.png").write_bytes(b"no image")
    (test / "Normal/._a.bmp").write_bytes(b"of macOS")
    return train, test


def darkened(image: Image.Image) -> Image.Image:
    return image.point(lambda value: value // 6)


def save(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def test_scenes_are_found_whatever_their_size_format_and_light(sets: tuple[Path, Path]) -> None:
    counts: list[tuple[int, int]] = []
    found = find_overlap(*sets, progress=lambda done, total: counts.append((done, total)))
    assert [(shared.second, shared.same) for shared in found.shared] == [
        ("Low/c.jpg", "scene"),
        ("Normal/a.bmp", "pixels"),
        ("Normal/b.jpg", "scene"),
    ]
    assert [Path(shared.first).name for shared in found.shared] == ["2.png", "0.png", "1.png"]
    assert all(TWIN <= shared.similarity <= 1 for shared in found.shared)
    assert (found.first_count, found.second_count) == (5, 6)
    assert [Path(name.partition(":")[0]).name for name in found.unreadable] == ["broken.png"]
    assert counts[-1] == (16, 16)


def test_nothing_is_shared_with_other_photographs(sets: tuple[Path, Path], tmp_path: Path) -> None:
    save(photo(7), tmp_path / "x.png")
    assert find_overlap(sets[0], tmp_path).shared == ()


def test_bright_sky_over_dark_ground_is_no_scene() -> None:
    """Two views with the same coarse light: correlated above the threshold, unlike in detail."""
    rng = np.random.default_rng(0)
    rows = np.linspace(0, 1, 64)[:, None]
    light = 120 / (1 + np.exp((rows - 0.6) * 20))
    blocks = [np.kron(rng.normal(0, 12, (16, 16)), np.ones((4, 4))) for _ in range(2)]
    views = [np.clip(60 + light + block, 0, 255).astype(np.uint8) for block in blocks]
    assert np.corrcoef([view.ravel() for view in views])[0, 1] > TWIN
    thumbs = [view.tobytes() for view in views]
    assert find_twins(thumbs) == []
    assert find_shared(thumbs[:1], thumbs[1:]) == {}
    assert list(find_shared(thumbs[:1], thumbs)) == [(0, 0)]


def test_the_command_lists_shows_and_ends_with_1(sets: tuple[Path, Path], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["data", "overlap", *map(str, sets), "--html", str(page)]
    ended = CliRunner().invoke(app, arguments)
    assert ended.exit_code == 1, ended.output
    assert "Normal/a.bmp  our485/high/0.png  same pixels" in ended.stdout
    assert "3 of 6 in the second set are also among the 5 of the first: 1 with" in ended.stdout
    assert "broken.png" in ended.stderr
    text = page.read_text(encoding="utf-8")
    assert text.count("<img ") == 6
    assert "train/our485/high/1.png" in text


def test_wrong_folders_are_named(sets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        find_overlap(sets[0], tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        find_overlap(sets[0], tmp_path / "none")
    with pytest.raises(DataError, match="one is in the other"):
        find_overlap(sets[0], sets[0] / "our485")
