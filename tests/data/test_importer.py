from __future__ import annotations

import io
import shutil
import unicodedata
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from mirnet.data.importer import import_data
from mirnet.data.layout import find_pairs
from mirnet.data.matching import plan_import
from mirnet.data.sources import Entry
from mirnet.data.versioning import take_snapshot
from mirnet.errors import DataError

NAMES = st.text(
    st.characters(categories=("L", "N"), include_characters=" .-_()é日"), min_size=1, max_size=12
).map(lambda name: unicodedata.normalize("NFC", name).strip(". "))


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def fill(root: Path, names: dict[str, int]) -> Path:
    for name, value in names.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(value))
    return root


def zipped(path: Path, names: dict[str, int | bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in names.items():
            archive.writestr(name, png(value) if isinstance(value, int) else value)
    return path


def value_of(path: Path) -> int:
    return int(np.asarray(Image.open(path))[0, 0, 0])


def entries(*names: str) -> list[Entry]:
    return [Entry(PurePosixPath(name), 1) for name in names]


@pytest.mark.parametrize("top", ["", "LOLdataset/", "some/where/LOL v1/"])
def test_published_zip_keeps_its_bytes(top: str, tmp_path: Path) -> None:
    names = {"our485/low/2.png": 1, "our485/high/2.png": 101, "eval15/low/1.png": 2}
    names["eval15/high/1.png"] = 102
    folder = fill(tmp_path / "published", names)
    with_top: dict[str, int | bytes] = {top + name: value for name, value in names.items()}
    with_top["__MACOSX/" + top + "our485/low/._2.png"] = b"junk"
    with_top[top + "our485/.DS_Store"] = b"junk"
    import_data(zipped(tmp_path / "lol.zip", with_top), tmp_path / "data")
    assert take_snapshot(tmp_path / "data").digest == take_snapshot(folder).digest
    assert not list(tmp_path.glob(".data*"))


def test_lol_v2_real(tmp_path: Path) -> None:
    source = fill(
        tmp_path / "LOL-v2",
        {
            "Real_captured/Train/Low/low00001.png": 1,
            "Real_captured/Train/Normal/normal00001.png": 101,
            "Real_captured/Test/Low/low00690.png": 2,
            "Real_captured/Test/Normal/normal00690.png": 102,
            "Synthetic/Train/Low/r0.png": 3,
            "Synthetic/Train/Normal/r0.png": 103,
        },
    )
    with pytest.raises(DataError, match=r"Real_captured/Train, Synthetic/Train.*--only"):
        import_data(source, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    import_data(source, tmp_path / "data", only="Real_captured")
    ids = [pair.id for pair in find_pairs(tmp_path / "data")]
    assert ids == ["eval15/00690.png", "our485/00001.png"]
    assert value_of(tmp_path / "data/our485/high/00001.png") == 101


@pytest.mark.parametrize(("low", "high"), [("low", "high"), ("Input", "Target"), ("lq", "GT")])
def test_any_pair_of_folders(low: str, high: str, tmp_path: Path) -> None:
    source = fill(tmp_path / "own", {f"{low}/a b.PNG": 1, f"{high}/a b.PNG": 101})
    import_data(source, tmp_path / "data")
    assert [pair.id for pair in find_pairs(tmp_path / "data")] == ["our485/a b.PNG"]


def test_other_encodings_meet_as_png(tmp_path: Path) -> None:
    source = fill(tmp_path / "own", {"low/1.png": 10, "high/1.png": 100})
    picture = Image.open(source / "high/1.png")
    (source / "high/1.png").unlink()
    picture.save(source / "high/1.JPG", "JPEG", quality=95)
    import_data(source, tmp_path / "data")
    (pair,) = find_pairs(tmp_path / "data")
    assert pair.id == "our485/1.png"
    assert Image.open(pair.high_path).format == "PNG"
    assert value_of(pair.high_path) == pytest.approx(100, abs=2)


def test_missing_partner_does_not_shift_the_rest(tmp_path: Path) -> None:
    names = {f"low/{n}.png": n for n in range(1, 6)} | {f"high/{n}.png": 100 + n for n in (1, 3, 4)}
    source = fill(tmp_path / "own", names)
    with pytest.raises(DataError, match=r"2 images have no partner.*low/2\.png, low/5\.png"):
        import_data(source, tmp_path / "data")
    import_data(source, tmp_path / "data", skip_unpaired=True)
    pairs = find_pairs(tmp_path / "data")
    assert [(value_of(p.low_path), value_of(p.high_path)) for p in pairs] == [
        (1, 101),
        (3, 103),
        (4, 104),
    ]


@given(names=st.sets(NAMES.filter(bool), min_size=1, max_size=30), order=st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_name_finds_its_partner(names: set[str], order: object) -> None:
    listed = [f"x/train/{side}/{name}.png" for name in names for side in ("low", "high")]
    order.shuffle(listed)  # type: ignore[attr-defined]
    plan = plan_import(entries(*listed), only=None, name="test")
    assert not plan.unpaired
    assert {pair.name for pair in plan.pairs} == {f"{name}.png" for name in names}
    for pair in plan.pairs:
        assert pair.low.path.name == pair.high.path.name
        assert (pair.low.path.parent.name, pair.high.path.parent.name) == ("low", "high")


@given(numbers=st.sets(st.integers(0, 99999), min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_numbered_names_with_side_words(numbers: set[int]) -> None:
    listed = [f"Low/low{n:05d}.png" for n in numbers] + [
        f"Normal/normal{n:05d}.png" for n in numbers
    ]
    plan = plan_import(entries(*listed), only=None, name="test")
    assert not plan.unpaired
    assert {pair.name for pair in plan.pairs} == {f"{n:05d}.png" for n in numbers}
    for pair in plan.pairs:
        assert pair.low.path.stem.removeprefix("low") == pair.high.path.stem.removeprefix("normal")


def test_composed_and_decomposed_names_are_the_same(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "café")
    assert decomposed != "café"
    plan = plan_import(entries(f"low/{decomposed}.png", "high/café.png"), only=None, name="test")
    assert [pair.name for pair in plan.pairs] == ["café.png"]


def test_nested_folders_stay_apart() -> None:
    listed = [f"{side}/{day}/1.png" for side in ("low", "high") for day in ("mon", "tue")]
    plan = plan_import(entries(*listed), only=None, name="test")
    assert [pair.name for pair in plan.pairs] == ["mon-1.png", "tue-1.png"]


def test_many_names_in_little_time() -> None:
    listed = [f"{side}/{n}.png" for side in ("low", "high") for n in range(50_000)]
    assert len(plan_import(entries(*listed), only=None, name="test").pairs) == 50_000


@pytest.mark.parametrize(
    "name", ["../low/1.png", "/low/1.png", "a/../../low/1.png", "C:\\low\\1.png"]
)
def test_traversal_is_refused(name: str, tmp_path: Path) -> None:
    archive = zipped(tmp_path / "bad.zip", {"low/2.png": 1, "high/2.png": 2, name: 3})
    with pytest.raises(DataError, match="leads out of the archive"):
        import_data(archive, tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["bad.zip"]


def test_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("low/1.png", bytes(2**25))
        archive.writestr("high/1.png", png(1))
    with pytest.raises(DataError, match="decompression bomb"):
        import_data(path, tmp_path / "data")
    assert [p.name for p in tmp_path.iterdir()] == ["bomb.zip"]


def test_links_in_an_archive_are_left_out(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("low/evil.png")
    link.external_attr = 0o120777 << 16
    archive_path = zipped(tmp_path / "x.zip", {"low/1.png": 1, "high/1.png": 2})
    with zipfile.ZipFile(archive_path, "a") as archive:
        archive.writestr(link, "/etc/passwd")
    plan = import_data(archive_path, tmp_path / "data")
    assert [pair.name for pair in plan.pairs] == ["1.png"]
    assert plan.links == (PurePosixPath("low/evil.png"),)


def test_interrupted_import_goes_on(tmp_path: Path) -> None:
    names = {f"{side}/{n}.png": n for side in ("low", "high") for n in range(6)}
    source = fill(tmp_path / "own", names)
    destination = tmp_path / "data"

    class Stop(Exception):
        pass

    def stop_at_three(done: int, _: int) -> None:
        if done == 3:
            raise Stop

    with pytest.raises(Stop):
        import_data(source, destination, on_pair=stop_at_three)
    assert not destination.exists()
    staging = tmp_path / ".data.importing"
    first = staging / "our485/low/0.png"
    before = first.stat().st_mtime_ns
    import_data(source, destination)
    assert (destination / "our485/low/0.png").stat().st_mtime_ns == before
    assert len(find_pairs(destination)) == 6
    assert not staging.exists()


def test_another_source_does_not_mix_in(tmp_path: Path) -> None:
    first = fill(tmp_path / "first", {"low/a.png": 1, "high/a.png": 2, "low/b.png": 1})
    staging = tmp_path / ".data.importing"
    fill(staging, {"our485/low/old.png": 9})
    (staging / ".source").write_text("something else")
    import_data(first, tmp_path / "data", skip_unpaired=True)
    assert [pair.name for pair in find_pairs(tmp_path / "data")] == ["a.png"]
    assert not (tmp_path / "data/our485/low/old.png").exists()


def test_destination_is_replaced_only_when_told(tmp_path: Path) -> None:
    source = fill(tmp_path / "own", {"low/a.png": 1, "high/a.png": 2})
    destination = fill(tmp_path / "data", {"mine.png": 3})
    with pytest.raises(DataError, match="not empty"):
        import_data(source, destination)
    assert (destination / "mine.png").is_file()
    import_data(source, destination, replace=True)
    assert [pair.id for pair in find_pairs(destination)] == ["our485/a.png"]
    assert not (destination / "mine.png").exists()


def test_damaged_archive_leaves_nothing(tmp_path: Path) -> None:
    path = zipped(tmp_path / "x.zip", {"low/1.png": 1, "high/1.png": 2})
    data = bytearray(path.read_bytes())
    data[60] ^= 0xFF  # in the pixels of the first entry
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"low/1\.png"):
        import_data(path, tmp_path / "data")
    assert not (tmp_path / "data").exists()
    (tmp_path / "no.zip").write_text("hello")
    with pytest.raises(DataError, match="not a zip file"):
        import_data(tmp_path / "no.zip", tmp_path / "data")
    shutil.rmtree(tmp_path / ".data.importing")
    with pytest.raises(DataError, match="no pairs in it"):
        import_data(tmp_path, tmp_path / "data")
