"""The folder of photographs for the published model, from fakes of its sources."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.photographs import (
    AT_LEAST,
    TABLE,
    Photograph,
    assemble,
    credits_table,
    main,
    opened,
    read_table,
)
from mirnet.errors import DataError

CONTENTS: Mapping[str, bytes] = {
    name: name.encode() for name in ("lake.jpg", "cat.jpg", "tree.png", "house.jpg")
}


def row(name: str, kind: str, source: str, version: str) -> Photograph:
    digest = hashlib.sha256(CONTENTS[name]).hexdigest()
    place = f"images/a {name}"
    return Photograph(
        name, kind, source, version, place, digest, "me", "CC0-1.0", 600, 512, "LICENSE"
    )


@pytest.fixture
def repository(tmp_path: Path) -> tuple[Path, str]:
    """The folder of clones, and the commit of ``somebody/pictures`` that has two photographs."""
    place = tmp_path / "clones/somebody/pictures"
    (place / "images").mkdir(parents=True)
    for name in ("lake.jpg", "cat.jpg"):
        (place / f"images/a {name}").write_bytes(CONTENTS[name])
    git = ["git", "-C", str(place), "-c", "user.name=me", "-c", "user.email=me@here"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "photographs"]):
        subprocess.run([*git, *words], check=True)
    subprocess.run([*git, "config", "uploadpack.allowFilter", "true"], check=True)
    commit = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    (place / "images/a cat.jpg").unlink()
    subprocess.run([*git, "commit", "-q", "-a", "-m", "without the cat"], check=True)
    return tmp_path / "clones", commit


@pytest.fixture
def debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients of Debian that know one package, ``wallpapers``, with one photograph."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in (
        ("apt-get", '[ "$2" = wallpapers ] || { echo "E: no $2" >&2; exit 100; }; : > w.deb'),
        ("dpkg-deb", 'mkdir -p "$3/images"; printf tree.png > "$3/images/a tree.png"'),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")


def test_the_table_is_sound() -> None:
    photos = read_table()
    assert len(photos) >= AT_LEAST
    assert len({photo.sha256 for photo in photos}) == len(photos)
    for photo in photos:
        assert min(photo.width, photo.height) >= 512, photo.name
        assert len(photo.sha256) == 64
        assert photo.author, photo.name
        assert photo.stated_in, photo.name
        assert photo.kind != "git" or len(photo.version) == 40, photo.name
        named = not photo.author.startswith("not named")
        assert named or not photo.licence.startswith("CC-BY"), photo.name
    assert "://" not in TABLE.read_text(encoding="utf-8")


def test_an_installed_package_gives_its_photograph(tmp_path: Path) -> None:
    astronaut = next(photo for photo in read_table() if photo.kind == "wheel")
    found = assemble(tmp_path, at_least=1, photos=[astronaut])
    assert found.present == (astronaut,)
    assert hashlib.sha256((tmp_path / astronaut.name).read_bytes()).hexdigest() == astronaut.sha256


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_files_come_from_a_commit(form: str, tmp_path: Path, repository: tuple[Path, str]) -> None:
    clones, commit = repository
    photos = [row(name, "git", "somebody/pictures", commit) for name in ("lake.jpg", "cat.jpg")]
    ways = opened(form.format(clones))
    found = assemble(tmp_path / "photos", at_least=2, photos=photos, sources=ways)
    assert not found.missing
    assert {p.name: p.read_bytes() for p in (tmp_path / "photos").iterdir()} == {
        name: CONTENTS[name] for name in ("lake.jpg", "cat.jpg")
    }


@pytest.mark.usefixtures("debian")
def test_what_cannot_be_had_is_named_and_the_rest_goes_on(
    tmp_path: Path, repository: tuple[Path, str]
) -> None:
    clones, commit = repository
    tree = row("tree.png", "deb", "wallpapers", "1")
    gone = row("house.jpg", "deb", "withdrawn", "1")
    lake = row("lake.jpg", "git", "somebody/pictures", commit)
    other = replace(row("cat.jpg", "git", "somebody/pictures", commit), sha256="0" * 64)
    photos = [tree, gone, lake, other]
    folder = tmp_path / "photos"
    found = assemble(folder, at_least=2, photos=photos, sources=opened(str(clones)))
    assert found.present == (tree, lake)
    assert found.missing == {
        "house.jpg": "withdrawn: apt-get: E: no withdrawn",
        "cat.jpg": "somebody/pictures: its digest is not the table's",
    }
    assert sorted(path.name for path in folder.iterdir()) == ["lake.jpg", "tree.png"]
    with pytest.raises(DataError, match=r"2 of 4 photographs(.|\n)*cat\.jpg(.|\n)*at least 3"):
        assemble(folder, at_least=3, photos=photos, sources=opened(str(clones)))


@pytest.mark.usefixtures("debian")
def test_a_second_run_fetches_only_what_is_missing_or_damaged(
    tmp_path: Path, repository: tuple[Path, str]
) -> None:
    clones, commit = repository
    photos = [
        row("tree.png", "deb", "wallpapers", "1"),
        *(row(name, "git", "somebody/pictures", commit) for name in ("lake.jpg", "cat.jpg")),
    ]
    ways = opened(str(clones))
    assemble(tmp_path / "photos", at_least=3, photos=photos, sources=ways)
    (tmp_path / "photos/lake.jpg").write_bytes(b"cut")
    asked = []

    def noted(one: Photograph, scratch: Path):
        contents = ways["git"](one, scratch)

        def read(photo: Photograph) -> bytes:
            asked.append(photo.name)
            return contents(photo)

        return read

    found = assemble(tmp_path / "photos", at_least=3, photos=photos, sources={"git": noted})
    assert asked == ["lake.jpg"]
    assert not found.missing
    assert (tmp_path / "photos/lake.jpg").read_bytes() == CONTENTS["lake.jpg"]


def test_an_image_of_unknown_licence_is_refused(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/mine.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"below/mine\.jpg is not in the table"):
        main([str(tmp_path)])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"licence": "CC-BY-SA-4.0"}, "does not allow"),
        ({"kind": "http"}, "unknown kind"),
        ({"name": "../lake.jpg"}, "not a file name"),
    ],
)
def test_a_wrong_row_is_refused(change: dict[str, str], match: str, tmp_path: Path) -> None:
    values = asdict(row("lake.jpg", "git", "somebody/pictures", "0" * 40)) | change
    table = tmp_path / "table.csv"
    table.write_text(",".join(values) + "\n" + ",".join(map(str, values.values())) + "\n")
    with pytest.raises(DataError, match=match):
        read_table(table)


def test_credits_name_author_and_licence_of_each() -> None:
    photos = read_table()
    text = credits_table(photos)
    assert all(f"| {p.name} | {p.author} | {p.licence} |" in text for p in photos)
