"""Pairs are taken where names are certain; else images are looked at, or a message says why."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.data.importer import import_data
from mirnet.data.matching import plan_import
from mirnet.data.placing import Patterns
from mirnet.data.sources import Entry
from mirnet.errors import DataError


def write(root: Path, *names: str, scene: int | None = None, level: int | None = None) -> Path:
    """Images: of a scene, else each of its own; dark where the name says so."""
    for number, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(number if scene is None else scene).random((16, 16))
        bright = level or (40 if "low" in name or "dark" in name else 220)
        grey = np.kron(coarse, np.ones((10, 10))) * bright
        PIL.Image.fromarray(np.stack([grey.astype(np.uint8)] * 3, axis=2)).save(path)
    return root


def planned(*names: str, **options: object) -> list[tuple[str, str]]:
    entries = [Entry(PurePosixPath(name), 1) for name in names]
    plan = plan_import(entries, only=None, name="source", **options)  # type: ignore[arg-type]
    return [(str(pair.low.path), str(pair.high.path)) for pair in plan.pairs]


@pytest.mark.parametrize(
    ("low", "high"),
    [
        # a word of the other side, or within a word
        *[("lighthouse", "house"), ("darkroom", "room"), ("llama", "ama"), ("longboat", "boat")],
        *[("reflection", "lection"), ("house", "lighthouse"), ("room", "darkroom")],
        *[("light_house", "house"), ("house", "dark_house"), ("after-8", "8")],
        # a word of the side, but not in all names
        *[("dark_room", "room"), ("tunnel_in", "tunnel"), ("room", "bright_room"), ("low5", "5")],
    ],
)
def test_words_of_a_scene_are_no_words_of_a_side(low: str, high: str) -> None:
    names = ("low/x.png", "high/x.png", f"low/{low}.png", f"high/{high}.png")
    assert planned(*names) == [("low/x.png", "high/x.png")]


def test_a_word_on_one_side_only_is_looked_at(tmp_path: Path) -> None:
    names = ("low/dark_room.png", "low/dark_hall.png", "high/room.png", "high/hall.png")
    with pytest.raises(DataError, match=r"does not show the same as.*--low FOLDER --high FOLDER"):
        import_data(write(tmp_path / "others", *names), tmp_path / "data")
    source = write(tmp_path / "same", *names, scene=1)
    plan = import_data(source, tmp_path / "data")
    assert plan.assumed
    assert [pair.name for pair in plan.pairs] == ["hall.png", "room.png"]


def test_scenes_called_like_sides_in_one_folder() -> None:
    names = [f"{scene}_{side}.png" for scene in ("dark_room", "light") for side in ("low", "high")]
    names += ["low.png"]
    pairs = [("dark_room_low.png", "dark_room_high.png"), ("light_low.png", "light_high.png")]
    assert planned(*names) == pairs


SAMPLES = ("samples/low/1.png", "samples/high/1.png")
FLAT = tuple(f"{n}_{side}.png" for n in range(5) for side in ("low", "high"))


def test_pairs_told_in_two_ways_are_a_message() -> None:
    with pytest.raises(DataError) as refused:
        planned(*SAMPLES, *FLAT)
    assert (
        "5 by words in names of files, such as 0_low.png and 0_high.png; 1 others by folders"
        in (str(refused.value))
    )
    assert "--only NAME" in str(refused.value)
    assert len(planned(*SAMPLES, *FLAT, patterns=Patterns("*_low.png", "*_high.png"))) == 5
    assert planned(*SAMPLES, *FLAT, patterns=Patterns("low", "high")) == [SAMPLES]


@pytest.mark.parametrize(
    "others",
    [
        ("A/1.png", "B/1.png"),
        ("s1/low.png", "s1/high.png"),
        ("low/9_dark.png", "low/9_bright.png"),
        ("low_v2/7.png", "high_v2/7.png"),
    ],
)
def test_pairs_of_another_way_are_never_left_out(others: tuple[str, str]) -> None:
    names = [f"{side}/{n}.png" for n in range(9) for side in ("low", "high")]
    with pytest.raises(DataError, match=r"two ways|several folders could be"):
        planned(*names, *others)


def test_the_way_that_pairs_most_counts() -> None:
    scenes = ("dark/1.png", "dark/2.png", "bright/1.png")
    pairs = sorted((f"low/{scene}", f"high/{scene}") for scene in scenes)
    assert sorted(planned(*(name for pair in pairs for name in pair))) == pairs


def test_as_many_pairs_in_two_ways_are_a_message() -> None:
    names = [f"{side}/{scene}/1.png" for side in ("low", "high") for scene in ("dark", "bright")]
    with pytest.raises(DataError, match=r"told in two ways: 2 by folders.*2 others by outer"):
        planned(*names, merge=True)
    assert len(planned(*names, patterns=Patterns("low", "high"))) == 2


def test_an_image_with_a_side_is_not_of_neither(tmp_path: Path) -> None:
    source = write(tmp_path / "set", "low/1.png", "high/1.png", "2_low.png", "view.png", scene=1)
    with pytest.raises(DataError, match=r"1 images have no partner of the same name: 2_low\.png"):
        import_data(source, tmp_path / "data")
    command = ["data", "import", str(source), "--data", str(tmp_path / "data")]
    told = CliRunner().invoke(app, [*command, "--skip-unpaired"])
    assert told.exit_code == 0, told.output
    assert "left out: 1 images without a partner, such as 2_low.png" in told.output
    assert "left out: 1 images of neither side, such as view.png" in told.output


def test_what_only_leaves_out_is_not_of_neither_side(tmp_path: Path) -> None:
    names = [f"{scene}/{side}/1.png" for scene in ("a1", "b2") for side in ("low", "high")]
    source = write(tmp_path / "set", *names)
    command = ["data", "import", str(source), "--data", str(tmp_path / "data"), "--only", "a1"]
    told = CliRunner().invoke(app, command)
    assert told.exit_code == 0, told.output
    assert "neither side" not in told.output
    assert "left out: 2 images whose path does not contain --only, such as b2/high/1.png" in (
        told.output
    )


def test_more_is_left_out_than_taken_only_if_told(tmp_path: Path) -> None:
    names = ["low/1.png", "high/1.png", "x/1.png", "y/1.png", "z/1.png"]
    source = write(tmp_path / "set", *names, scene=1)
    with pytest.raises(DataError, match=r"only 1 pairs, and 3 images whose names say no side: x/1"):
        import_data(source, tmp_path / "data")
    assert len(import_data(source, tmp_path / "data", skip_unpaired=True).pairs) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("train_1_low.png", "train_1_high.png"),
        ("train_1_low.png", "train_1_high.png", "test_1_low.png", "test_1_high.png"),
        ("low_train_1.png", "high_train_1.png"),
        ("1_test_low.png", "1_test_high.png", "2_low.png", "2_high.png"),
        ("val7-low.png", "val7-high.png", "8-low.png", "8-high.png"),
        ("low/train_a.png", "high/train_a.png", "low/test_b.png", "high/test_b.png"),
    ],
)
def test_splits_in_names_of_files_are_a_message(names: tuple[str, ...]) -> None:
    with pytest.raises(DataError, match=r"names of files say the split: .*--low 'train_\*_low"):
        planned(*names)
    patterns = Patterns("low", "high") if "/" in names[0] else Patterns("*low*.png", "*high*.png")
    assert len(planned(*names, patterns=patterns)) == len(names) // 2


@pytest.mark.parametrize("stem", ["train", "train_station", "test_tube", "trainer", "evaluate"])
def test_scenes_called_like_splits_are_pairs(stem: str) -> None:
    names = [f"{scene}_{side}.png" for scene in (stem, "house") for side in ("low", "high")]
    assert len(planned(*names)) == 2
