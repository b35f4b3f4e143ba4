"""Which places go together, what is passed over and why, and what nothing-to-do says."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mirnet.batch import manifest
from mirnet.batch.ledger import Ledger
from mirnet.batch.passed_over import REASONS
from mirnet.batch.run import preview, run_batch
from mirnet.config import Settings
from mirnet.errors import MirnetError, NotAPicture, UsageError
from mirnet.junk import is_junk
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.store import NoSuchPlace
from tests.batch.samples import MODEL, double, fill, picture

NIGHT = 1_700_000_000


def enhance(source: str, target: str, settings: Settings, **params: Any) -> EnhanceResult:
    return run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        params=EnhanceParams(contact_images=0, max_bad_share=1, **params),
        settings=settings,
    )


def fates(target: str, settings: Settings) -> dict[str, tuple[str, str]]:
    found = Ledger.of_target(open_store(target, settings)).past_runs().rows()
    return {row.input_key: (row.status, (row.reason or "").partition(":")[0]) for row in found}


def same_moment(source: str) -> None:
    """Files of the same size get the same version."""
    if not source.startswith("s3://"):
        for path in Path(source).rglob("*.png"):
            os.utime(path, (NIGHT, NIGHT))


@pytest.mark.parametrize("format", ["parquet", "jsonl"])
def test_the_same_name_size_and_time_of_another_source_is_a_conflict(
    format: str, places: tuple[str, str], settings: Settings
) -> None:
    """On S3 the version is of the bytes: also the very same image is of another source."""
    source, target = places
    other = f"{source}-other"
    data = picture(1)
    theirs = data if source.startswith("s3://") else data[:-1] + b"\0"
    fill(source, {"a.png": data, "bad.png": b"x"})
    fill(other, {"a.png": theirs, "bad.png": b"x" if source.startswith("s3://") else b"y"})
    same_moment(source)
    same_moment(other)
    mine = {i.key: i.version for i in open_store(source, settings).list()}
    assert mine == {i.key: i.version for i in open_store(other, settings).list()}
    first = enhance(source, target, settings, manifest_format=format)
    assert (first.enhanced, first.quarantined) == (1, 1)
    store = open_store(target, settings)
    before = store.get("a.png").data
    second = enhance(other, target, settings, manifest_format=format)
    assert (second.skipped, second.enhanced, second.quarantined, second.failed) == (0, 0, 0, 2)
    assert set(fates(target, settings).values()) == {("failed", "conflict")}
    assert store.get("a.png").data == before
    assert store.get("_mirnet/quarantine/bad.png").data == b"x"
    # and the first is not asked again for what the second one did
    third = enhance(source, target, settings, manifest_format=format)
    assert (third.skipped, third.planned) == (2, 2)


def test_rows_of_before_sources_were_known_count(
    places: tuple[str, str], settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    with monkeypatch.context() as patch:
        usual = manifest.as_dict
        without = lambda row: usual(row) | {"source_digest": None}  # noqa: E731
        patch.setattr(manifest, "as_dict", without)
        enhance(source, target, settings)
    assert enhance(source, target, settings).skipped == 1


def test_one_source_however_it_is_written(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    (tmp_path / "link").symlink_to(tmp_path / "in")
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert enhance("in", "out", settings).enhanced == 1
    for spelling in ("in/", "./in", "in/.", "b/../in", "link", "link/", f"{tmp_path}//in", "~/in"):
        for target in ("out", "out/", f"{tmp_path}/b/../out"):
            assert enhance(spelling, target, settings).skipped == 1, spelling


def test_one_prefix_however_it_is_written(s3: str, settings: Settings) -> None:
    fill(f"{s3}/in", {"a.png": picture(1)})
    assert enhance(f"{s3}/in", f"{s3}/out", settings).enhanced == 1
    for spelling in (f"{s3}/in/", f"{s3}/in//"):
        assert enhance(spelling, f"{s3}/out/", settings).skipped == 1
    for spelling in (f"{s3}//in", f"{s3}/./in", f"{s3}/x/../in"):
        with pytest.raises(UsageError, match="S3 does not resolve"):
            enhance(spelling, f"{s3}/out", settings)


def test_one_file_has_one_name(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(str(tmp_path), {"a.png": picture(1)})
    (tmp_path / "b").mkdir()
    monkeypatch.chdir(tmp_path / "b")
    assert enhance("../a.png", "../out.png", settings).enhanced == 1
    assert enhance(
        str(tmp_path / "a.png"), str(tmp_path / "b" / ".." / "out.png"), settings
    ).skipped
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "b", "out.png", "workspace"}


SPELLINGS = ["{0}/out/2024", "{0}/out/2024/", "{0}/out/./2024", "{0}/out/deep/../2024", "{0}/link"]


@pytest.mark.parametrize("source", SPELLINGS)
@pytest.mark.parametrize("target", ["{0}/out", "{0}/out/", "{0}/./out", "{0}/to-out", "{0}"])
def test_a_source_inside_the_target_is_refused(
    source: str, target: str, tmp_path: Path, settings: Settings
) -> None:
    fill(str(tmp_path / "out" / "2024"), {"a.png": picture(1)})
    (tmp_path / "out" / "deep").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "out" / "2024")
    (tmp_path / "to-out").symlink_to(tmp_path / "out")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="the source lies inside the target"):
        enhance(source.format(tmp_path), target.format(tmp_path), settings)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_prefix_inside_the_target_is_refused(s3: str, settings: Settings) -> None:
    fill(f"{s3}/out/in", {"a.png": picture(1)})
    bucket = s3.rpartition("/")[0]
    for source in (f"{s3}/out/in", f"{s3}/out/in/", f"{s3}/out/in/a.png"):
        for target in (f"{s3}/out", f"{s3}/out/", s3, bucket, f"{bucket}/"):
            with pytest.raises(UsageError, match="the source lies inside the target"):
                enhance(source, target, settings)
    assert [info.key for info in open_store(s3, settings).list()] == ["out/in/a.png"]


def test_names_that_begin_alike_are_not_inside_each_other(
    places: tuple[str, str], settings: Settings
) -> None:
    source, _ = places
    fill(f"{source}2", {"a.png": picture(1)})
    fill(source, {"a.png": picture(1)})
    assert enhance(f"{source}2", source + "3", settings).enhanced == 1
    assert enhance(source, f"{source}4", settings).enhanced == 1
    assert enhance(f"{source}4/a.png", f"{source}5", settings).enhanced == 1


def test_the_same_folder_by_another_name_is_found_out(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on file systems that do not know case, and where one is mounted twice."""
    fill(str(tmp_path / "Photos"), {"a.png": picture(1)})
    (tmp_path / "photos").mkdir()
    usual = Path.samefile

    def without_case(one: Path, other: Path) -> bool:
        lower = (Path(str(one).lower()), Path(str(other).lower()))
        return lower[0] == lower[1] or usual(one, other)

    monkeypatch.setattr(Path, "samefile", without_case)
    with pytest.raises(UsageError, match="another place"):
        enhance(str(tmp_path / "Photos"), str(tmp_path / "photos"), settings)


PASSED_OVER = {
    "notes.txt": "suffix",
    "movie.MP4": "suffix",
    "._a.png": "junk",
    "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg": "junk",
    "#recycle/a.png": "junk",
    ".Trash-1000/files/a.png": "junk",
    "deep/.thumbnails/a.png": "junk",
    "_mirnet/quarantine/a.png": "own",
    "out/old.png": "own",
    "skip/a.png": "exclude",
    "small.png": "too-small",
}


def test_what_is_passed_over_is_counted_by_reason(
    places: tuple[str, str], settings: Settings
) -> None:
    source, _ = places
    fill(source, dict.fromkeys(PASSED_OVER, picture(1)) | {"small.png": b"x"})
    fill(source, {"a.png": picture(2), "b/a.PNG": picture(3)})
    result = enhance(source, f"{source}/out", settings, exclude=("skip/*",), min_bytes=2)
    expected = {"suffix": 2, "junk": 5, "own": 2, "exclude": 1, "too-small": 1}
    assert (result.planned, result.failed) == (2, 0)
    assert result.passed_over == expected
    assert result.summary_uri is not None
    folder, _, name = result.summary_uri.rpartition("/")
    summary = json.loads(open_store(folder, settings).get(name).data)
    assert summary["passed_over"] == expected
    assert summary["counts"]["ignored"] == sum(expected.values())
    with preview(
        source,
        f"{source}/out",
        model=MODEL,
        params=EnhanceParams(include=("b/*",)),
        settings=settings,
    ) as plan:
        assert plan.counts.passed_over["include"] == 3


def refused(source: str, target: str, settings: Settings, **params: Any) -> str:
    """What the one line says; nothing is written."""
    with pytest.raises(MirnetError) as caught:
        enhance(source, target, settings, **params)
    assert caught.value.exit_code == 2
    with (
        pytest.raises(MirnetError, match=r".") as again,
        preview(
            source,
            target,
            model=MODEL,
            params=EnhanceParams(**params),
            settings=settings,
        ),
    ):
        pass
    assert str(again.value) == str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_nothing_to_enhance_is_said_and_why(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.txt": b"x", "b.txt": b"x", "._c.png": b"x"})
    said = refused(source, target, settings)
    assert said.startswith(f"{source}: nothing to enhance; passed over: 2 suffix (")
    assert "enhance.suffixes: .png, .jpg" in said
    assert "1 junk (left by" in said
    fill(source, {"a.png": picture(1)})
    said = refused(source, target, settings, include=("nihgt/*",))
    assert "1 include (not matched by enhance.include: nihgt/*)" in said
    assert "1 too-small (smaller than enhance.min_bytes: 99999)" in refused(
        source, target, settings, min_bytes=99999
    )
    assert not list(open_store(target, settings).list())
    if not source.startswith("s3://"):
        assert not Path(target).exists()


def test_too_young_is_for_the_next_run(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    result = enhance(source, target, settings, min_age_s=3600)
    assert (result.planned, result.passed_over) == (0, {"too-young": 1})
    said = refused(f"{source}/a.png", target, settings, min_age_s=3600)
    assert said == f"{source}/a.png: passed over: younger than enhance.min_age_s: 3600"


def test_a_named_file_that_is_no_picture(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"notes.txt": b"x", "._a.png": picture(1)})
    for output in (target, f"{target}/out.png"):
        with pytest.raises(NotAPicture, match=r"notes\.txt: not-an-image") as caught:
            run_batch(
                f"{source}/notes.txt",
                output,
                enhance=double,
                model=MODEL,
                params=EnhanceParams(contact_images=0),
                settings=settings,
            )
        assert caught.value.exit_code == 2
    assert enhance(f"{source}/._a.png", f"{target}/a.png", settings).enhanced == 1, "by its name"


def test_places_that_are_not_there(tmp_path: Path, s3: str, settings: Settings) -> None:
    target = str(tmp_path / "out")
    assert "no such file or folder" in refused(str(tmp_path / "none"), target, settings)
    assert "no such file or folder" in refused(str(tmp_path / "none.png"), target, settings)
    assert "nothing lies there" in refused(f"{s3}/none", target, settings)
    assert "no such object" in refused(f"{s3}/none.png", target, settings)
    assert "no such bucket" in refused("s3://no-such-bucket/in", target, settings)
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    assert "no such bucket" in refused(str(tmp_path / "in"), "s3://no-such-bucket/out", settings)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe.png")
    for odd in ("loop", "pipe.png", "x" * 300):
        refused(str(tmp_path / odd), target, settings)
    assert not (tmp_path / "out").exists()
    with pytest.raises(NoSuchPlace):
        enhance(str(tmp_path / "none"), target, settings)


@pytest.mark.parametrize("name", ["out.gif", "out.heic", "out.png.bak", "out.v2", "sub/out.pdf"])
def test_an_unknown_suffix_of_an_output_is_refused(
    name: str, places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    said = refused(f"{source}/a.png", f"{target}/{name}", settings)
    assert "images are written as .png" in said
    assert "for a folder end it with /" in said
    assert enhance(f"{source}/a.png", f"{target}/{name}/", settings).enhanced == 1
    assert enhance(f"{source}/a.png", f"{target}/plain", settings).enhanced == 1
    if not source.startswith("s3://"):
        assert enhance(f"{source}/a.png", f"{target}/{name}", settings).skipped == 1, "a folder now"


def test_a_folder_does_not_go_into_a_picture(places: tuple[str, str], settings: Settings) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    assert "looks like one image" in refused(source, f"{target}/out.JPG", settings)
    assert enhance(source, f"{target}/out.JPG/", settings).enhanced == 1
    assert enhance(source, f"{target}/photos.2024", settings).enhanced == 1


def test_odd_targets(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "latin-\udce9.png").write_bytes(picture(1))
    (tmp_path / "dangling.png").symlink_to("nothing")
    (tmp_path / "hard.png").hardlink_to(tmp_path / "in" / "a.png")
    for source, target, why in (
        ("in", "file", "is a file"),
        ("in/a.png", "file/", "is a file"),
        ("in/a.png", "file", "is a file"),
        ("in/a.png", "file/x.png", "file is a file"),
        ("in", "file/x/y", "file is a file"),
        ("in/a.png", "/dev/null", "is a file"),
        ("in/a.png", "x" * 300 + ".png", "File name too long"),
        ("in", "x" * 300, "File name too long"),
        ("in", "out-\udce9", "not UTF-8"),
        ("latin-\udce9.png", "out.png", "not UTF-8"),
        ("dangling.png", "out.png", "dangling.png: no such file or folder; it is a link to"),
        ("in", "-", "no reading from a pipe"),
        ("in/a.png", "-", "no reading from a pipe"),
        ("-", "out", "no reading from a pipe"),
        ("in", "", "name a file or folder"),
        ("", "out", "name a file or folder"),
        ("in", "s3:/bucket/out", "s3://bucket/prefix"),
        ("in", "gs://bucket/out", "s3://bucket/prefix"),
        ("in/a.png", "https://host/out.png", "s3://bucket/prefix"),
        ("s3:/bucket/in", "out", "s3://bucket/prefix"),
        ("in", "in", "another place"),
        ("in/a.png", "in/a.png", "another place"),
        ("in/a.png", "in/../in/a.png", "another place"),
        ("in/a.png", "hard.png", "another place"),
        ("in/a.png", "in", "another place than the source; name the file"),
    ):
        assert why in refused(source, target, settings), (source, target)
    left = {"in", "file", "hard.png", "latin-\udce9.png", "dangling.png"}
    assert {path.name for path in tmp_path.iterdir()} == left


def test_the_page_names_each_reason_and_the_list_of_junk() -> None:
    page = (Path(__file__).parents[2] / "docs" / "batch.md").read_text("utf-8")
    section = page.partition("### What is passed over")[2].partition("###")[0]
    for reason in REASONS:
        assert f"`{reason}`" in section
    for name in re.findall(
        r"`([^`]+)`", section.partition("| `junk` |")[2].partition("mirnet/")[0]
    ):
        if not name.startswith("mirnet"):
            assert is_junk([name.replace("*", "1000")]), name
