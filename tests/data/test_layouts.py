"""Layouts that people have: matched where it is certain, else told what was seen."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.data.importer import import_data
from mirnet.data.layout import find_pairs
from mirnet.data.matching import ImportPlan, plan_import
from mirnet.data.placing import Patterns
from mirnet.data.sources import Entry
from mirnet.errors import DataError, UsageError

# (low, high) of a source -> what the pair is called here
CERTAIN: dict[str, dict[tuple[str, str], str]] = {
    "train and val": {
        ("train/low/1.png", "train/high/1.png"): "our485/1.png",
        ("val/low/2.png", "val/high/2.png"): "eval15/2.png",
    },
    "train, val and test": {
        ("train/low/1.png", "train/high/1.png"): "our485/1.png",
        ("val/low/1.png", "val/high/1.png"): "our485/val-1.png",
        ("test/low/1.png", "test/high/1.png"): "eval15/1.png",
    },
    "split below the side": {
        ("input/train/1.png", "gt/train/1.png"): "our485/1.png",
        ("input/test/1.png", "gt/test/1.png"): "eval15/1.png",
    },
    "split and side in one folder": {
        ("set/train_low/1.png", "set/train_high/1.png"): "our485/1.png",
        ("set/test_low/1.png", "set/test_high/1.png"): "eval15/1.png",
    },
    "camel case": {("trainLow/1.png", "trainHigh/1.png"): "our485/1.png"},
    "numbers with and without zeros": {
        ("low/1.png", "high/0001.png"): "our485/0001.png",
        ("low/12.png", "high/0012.png"): "our485/0012.png",
    },
    "numbers within names": {
        ("low/scene3_frame7.png", "high/scene03_frame007.png"): "our485/scene03_frame007.png"
    },
    "suffixes in one folder": {
        ("pairs/1_low.png", "pairs/1_high.png"): "our485/1.png",
        ("pairs/2_low.png", "pairs/2_high.png"): "our485/2.png",
    },
    "suffixes in one folder by split": {
        ("train/1-in.png", "train/1-gt.png"): "our485/1.png",
        ("test/1-in.png", "test/1-gt.png"): "eval15/1.png",
    },
    "prefixes in one folder": {
        ("low00001.png", "normal00001.png"): "our485/00001.png",
        ("low_2.png", "normal_2.png"): "our485/2.png",
    },
    "dots before suffixes": {("1.dark.png", "1.bright.png"): "our485/1.png"},
    "suffixes in two folders": {("low/a_in.png", "high/a_gt.png"): "our485/a.png"},
    "low_light and normal_light": {
        ("low_light/1.png", "normal_light/1.png"): "our485/1.png",
    },
    "LowLight and NormalLight": {("LowLight/1.png", "NormalLight/1.png"): "our485/1.png"},
    "spaces and fillers": {("Low images/1.png", "GT images/1.png"): "our485/1.png"},
    "ground truth": {("Input/1.PNG", "Ground-Truth/1.PNG"): "our485/1.PNG"},
    "dark and light": {("dark/1.jpg", "light/1.jpg"): "our485/1.jpg"},
    "upper case": {("LOW/A.PNG", "HIGH/A.PNG"): "our485/A.PNG"},
    "scenes called like sides": {
        ("low/dark/1.png", "high/dark/1.png"): "our485/dark-1.png",
    },
    "top folders called like sides": {
        ("Dark/LOL/our485/low/1.png", "Dark/LOL/our485/high/1.png"): "our485/1.png",
    },
    "files in a folder called like a side": {
        ("input/1_low.png", "input/1_high.png"): "our485/1.png"
    },
    "sides after a name": {
        ("VE-LOL-Cap-Low_train/1.png", "VE-LOL-Cap-Normal_train/1.png"): "our485/1.png",
        ("VE-LOL-Cap-Low_test/1.png", "VE-LOL-Cap-Normal_test/1.png"): "eval15/1.png",
    },
    "sides before a name": {("low_v2/1.png", "high_v2/1.png"): "our485/1.png"},
    "a folder for each pair": {
        ("train/0001/low.png", "train/0001/high.png"): "our485/0001.png",
        ("train/0002/low.png", "train/0002/high.png"): "our485/0002.png",
        ("test/0003/low.png", "test/0003/high.png"): "eval15/0003.png",
    },
    "splits with fillers": {
        ("Training data/low/1.jpg", "Training data/high/1.jpg"): "our485/1.jpg",
        ("Eval_set/low/2.jpg", "Eval_set/high/2.jpg"): "eval15/2.jpg",
    },
    "LOL-v2": {
        ("Train/Low/low00001.png", "Train/Normal/normal00001.png"): "our485/00001.png",
        ("Test/Low/low00690.png", "Test/Normal/normal00690.png"): "eval15/00690.png",
    },
}


def entries(*names: str) -> list[Entry]:
    return [Entry(PurePosixPath(name), 1) for name in names]


def planned(*names: str, **options: object) -> ImportPlan:
    # sorted the other way round: nothing may depend on the order
    listed = entries(*sorted(names, reverse=True))
    return plan_import(listed, only=None, name="source", **options)  # type: ignore[arg-type]


def found(plan: ImportPlan) -> dict[tuple[str, str], str]:
    return {(str(p.low.path), str(p.high.path)): f"{p.split}/{p.name}" for p in plan.pairs}


@pytest.mark.parametrize("layout", CERTAIN)
def test_certain_layouts(layout: str) -> None:
    pairs = CERTAIN[layout]
    plan = planned(*(name for pair in pairs for name in pair), "README.md")
    assert found(plan) == pairs
    assert not plan.unpaired
    assert not plan.assumed
    assert [str(path) for path in plan.ignored] == ["README.md"]


def test_numbers_do_not_meet_where_two_could() -> None:
    plan = planned("low/1.png", "low/01.png", "high/1.png", "high/001.png")
    assert found(plan) == {("low/1.png", "high/1.png"): "our485/1.png"}
    assert sorted(map(str, plan.unpaired)) == ["high/001.png", "low/01.png"]


def test_words_within_words_are_no_sides() -> None:
    with pytest.raises(DataError, match=r"no pairs in it; seen: \.: 2 images such as highway"):
        planned("lowway.png", "highway.png")


def test_two_folders_for_a_side_are_named() -> None:
    with pytest.raises(DataError, match="several folders could be low: dark, input; name the"):
        planned("dark/1.png", "input/1.png", "gt/1.png")


def test_sets_side_by_side_are_taken_when_told() -> None:
    names = [f"{scene}/{side}/1.png" for scene in ("a", "b") for side in ("low", "high")]
    with pytest.raises(DataError, match=r"could be our485: a, b; .*--only NAME.*--merge"):
        planned(*names)
    assert sorted(found(planned(*names, merge=True)).values()) == [
        "our485/a-1.png",
        "our485/b-1.png",
    ]


def test_splits_in_different_places_keep_their_names() -> None:
    names = [f"{top}/{side}/1.png" for top in ("LOL/train", "test") for side in ("low", "high")]
    plan = planned(*names)
    assert sorted(found(plan).values()) == ["eval15/1.png", "our485/1.png"]
    assert plan.splits == (("LOL/train", "our485"), ("test", "eval15"))


def test_what_was_seen_is_said() -> None:
    names = ["left/x.png", "left/y.png", "right/x.png", "right/notes.txt"]
    with pytest.raises(DataError) as refused:
        planned(*names)
    message = str(refused.value)
    assert "left: 2 images such as x.png; right: 1 images such as x.png" in message
    assert "--low FOLDER --high FOLDER" in message


def test_sides_whose_names_differ_are_said() -> None:
    with pytest.raises(DataError, match=r"high: 1 images such as b.png; low: 1 images such as a"):
        planned("low/a.png", "high/b.png")


@pytest.mark.parametrize(
    ("low", "high", "pairs"),
    [
        ("left", "right", {("left/1.png", "right/1.png"): "our485/1.png"}),
        ("Left/", "RIGHT", {("left/1.png", "right/1.png"): "our485/1.png"}),
        ("left/*.png", "right/*.png", {("left/1.png", "right/1.png"): "our485/1.png"}),
        (
            "*_0.png",
            "*_1.png",
            {
                ("x/test/7_0.png", "x/test/7_1.png"): "eval15/7.png",
                ("x/train/7_0.png", "x/train/7_1.png"): "our485/7.png",
            },
        ),
        ("S/*/[ab].png", "S/*/c.png", {("S/s1/a.png", "S/s1/c.png"): "our485/s1.png"}),
    ],
)
def test_sides_as_a_person_names_them(
    low: str, high: str, pairs: dict[tuple[str, str], str]
) -> None:
    names = [name for pair in pairs for name in pair]
    plan = planned(*names, "other/9.png", patterns=Patterns(low, high))
    assert found(plan) == pairs
    assert [str(path) for path in plan.ignored] == ["other/9.png"]


def test_named_sides_without_common_names() -> None:
    with pytest.raises(DataError, match=r"--low a and --high b have no names in common"):
        planned("a/1.png", "b/2.png", patterns=Patterns("a", "b"))


def picture(level: int, seed: int) -> bytes:
    """Coarse structure of a seed at a brightness."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16))
    grey = np.kron(coarse, np.ones((10, 10))) * level / 255
    buffer = io.BytesIO()
    Image.fromarray(np.stack([grey.astype(np.uint8)] * 3, axis=2)).save(buffer, "PNG")
    return buffer.getvalue()


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def test_a_and_b_are_looked_at(tmp_path: Path) -> None:
    files = {f"trainA/{n}.png": picture(30, n) for n in range(3)}
    files |= {f"trainB/{n}.png": picture(220, n) for n in range(3)}
    files |= {"testA/9.png": picture(30, 9), "testB/9.png": picture(220, 9)}
    plan = import_data(write(tmp_path / "set", files), tmp_path / "data")
    assert plan.assumed
    assert len(plan.pairs) == 4
    ids = [pair.id for pair in find_pairs(tmp_path / "data")]
    assert ids == ["eval15/9.png", "our485/0.png", "our485/1.png", "our485/2.png"]
    assert (tmp_path / "data/our485/low/1.png").read_bytes() == files["trainA/1.png"]


def test_b_that_is_the_dark_side_is_said(tmp_path: Path) -> None:
    files = {"trainA/1.png": picture(220, 1), "trainB/1.png": picture(30, 1)}
    source = write(tmp_path / "set", files)
    with pytest.raises(DataError, match=r"trainA/1.png is not darker than trainB/1.png.*--low"):
        import_data(source, tmp_path / "data")
    import_data(source, tmp_path / "data", patterns=Patterns("trainB", "trainA"))
    assert (tmp_path / "data/our485/low/1.png").read_bytes() == files["trainB/1.png"]


def test_a_and_b_of_other_scenes_are_no_pairs(tmp_path: Path) -> None:
    files = {f"trainA/{n}.png": picture(30, n) for n in range(3)}
    files |= {f"trainB/{n}.png": picture(220, 50 + n) for n in range(3)}
    with pytest.raises(DataError, match="does not show the same as"):
        import_data(write(tmp_path / "set", files), tmp_path / "data")
    other = {f"trainB/x{n}.png": picture(220, n) for n in range(3)}
    unpaired = {name: data for name, data in files.items() if "A/" in name} | other
    with pytest.raises(DataError, match=r"seen: trainA: 3 images such as 0\.png; trainB: 3 images"):
        import_data(write(tmp_path / "unpaired", unpaired), tmp_path / "data")


def test_one_word_for_one_side(tmp_path: Path) -> None:
    files = {f"{n}.png": picture(30, n) for n in range(2)}
    files |= {f"{n}_gt.png": picture(220, n) for n in range(2)}
    plan = import_data(write(tmp_path / "set", files), tmp_path / "data")
    assert [pair.name for pair in plan.pairs] == ["0.png", "1.png"]
    assert (tmp_path / "data/our485/high/1.png").read_bytes() == files["1_gt.png"]


def test_links_are_left_out_and_said(tmp_path: Path) -> None:
    files = {"low/1.png": picture(30, 1), "high/1.png": picture(220, 1)}
    source = write(tmp_path / "set", files)
    (tmp_path / "secret.png").write_bytes(picture(220, 2))
    (source / "high/2.png").symlink_to(tmp_path / "secret.png")
    (source / "low/2.png").write_bytes(picture(30, 2))
    with pytest.raises(DataError, match=r"low/2.png \(1 links: --follow-links\)"):
        import_data(source, tmp_path / "data")
    plan = import_data(source, tmp_path / "data", follow_links=True)
    assert [pair.name for pair in plan.pairs] == ["1.png", "2.png"]


def test_hidden_folders_are_left_out(tmp_path: Path) -> None:
    files = {"low/1.png": b"x", "high/1.png": b"y"}
    files |= {f".data.importing/our485/{name}": data for name, data in files.items()}
    source = write(tmp_path / "set", files)
    assert len(import_data(source, source / "data").pairs) == 1


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    source = write(tmp_path / "set", {"low/1.png": b"x", "high/1.png": b"y"})
    (source / "low/again").symlink_to(source)
    plan = import_data(source, tmp_path / "data", follow_links=True)
    assert [pair.name for pair in plan.pairs] == ["1.png"]


def test_command_says_what_became_what(tmp_path: Path) -> None:
    files = {f"{split}/{side}/1.png": b"x" for split in ("train", "val") for side in ("lo", "hi")}
    files |= {"train/lo/._1.png": b"junk", "preview.png": b"x"}
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    command = ["data", "import", str(path), "--data", str(tmp_path / "data")]
    refused = CliRunner().invoke(app, [*command, "--low", "lo"])
    assert isinstance(refused.exception, UsageError)
    told = CliRunner().invoke(app, [*command, "--low", "lo", "--high", "hi"])
    assert told.exit_code == 0, told.output
    assert "train -> our485\nval -> eval15\n" in told.output
    assert "left out: 1 images of neither side, such as preview.png" in told.output
