"""Links are followed only where asked for, on the way in and on the way out."""

from __future__ import annotations

import itertools
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.beneath import Beneath, LinkInTheWay, NotRegular
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.storage.local import LocalStore
from mirnet.storage.places import open_store
from mirnet.storage.store import KeyRefused, ObjectRefused
from tests.batch.samples import MODEL, double, fill, picture

SECRET = b"root:$6$salt$hash:19000:0:99999:7:::\n" * 9


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Source with one image, target that is not there yet, and a place outside of both."""
    outside = tmp_path / "outside"
    fill(str(outside), {"secret.png": SECRET, "theirs.png": picture(2)})
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    return tmp_path / "in", tmp_path / "out", outside


def enhance(source: Path, target: Path, settings: Settings, **params: Any) -> EnhanceResult:
    return run_batch(
        str(source),
        str(target),
        enhance=double,
        model=MODEL,
        params=EnhanceParams(contact_images=0, max_bad_share=1, **params),
        settings=settings,
    )


def fates(target: Path) -> dict[str, tuple[str, str | None]]:
    found = Ledger.of_target(open_store(str(target), Settings())).past_runs().rows()
    return {row.input_key: (row.status, row.reason) for row in found}


def contents(folder: Path) -> Iterator[bytes]:
    return (path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_link_that_leads_outside_brings_nothing_in(
    folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    (source / "x.png").symlink_to(outside / "secret.png")
    (source / "relative.png").symlink_to("../outside/theirs.png")
    (source / "folder").symlink_to(outside)
    (source / "self.png").symlink_to("a.png")
    (source / "gone.png").symlink_to("nothing")
    (source / "devices.png").symlink_to("/dev/zero")
    result = enhance(source, target, settings)
    assert (result.planned, result.enhanced) == (1, 1)
    assert result.passed_over == {"link": 6}
    assert not any(SECRET[:20] in data for data in contents(target))
    assert set(fates(target)) == {"a.png"}


def test_links_are_followed_where_asked_for_and_never_in_circles(
    folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    (source / "x.png").symlink_to(outside / "secret.png")
    (source / "folder").symlink_to(outside)
    (source / "self.png").symlink_to("a.png")
    (source / "gone.png").symlink_to("nothing")
    (source / "circle.png").symlink_to("circle.png")
    (source / "up").symlink_to(source)
    (outside / "back").symlink_to(source)
    (source / "pipe.png").symlink_to(outside / "pipe")
    os.mkfifo(outside / "pipe")
    (source / "devices.png").symlink_to("/dev/zero")
    result = enhance(source, target, settings, follow_links=True)
    assert fates(target) == {
        "a.png": ("enhanced", None),
        "self.png": ("enhanced", None),
        "folder/theirs.png": ("enhanced", None),
        "folder/secret.png": ("quarantined", "not-an-image"),
        "x.png": ("quarantined", "not-an-image"),
        "gone.png": ("failed", "dangling-link"),
        "circle.png": ("failed", "dangling-link"),
    }
    assert result.passed_over == {"link": 2, "special": 3}


def test_a_link_back_into_the_target_is_no_input(
    folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    target.mkdir()
    (source / "done").symlink_to(target)
    (source / "one.png").symlink_to(target / "a.png")
    (source / "above").symlink_to(outside)
    (outside / "target").symlink_to(target)
    for _ in range(3):
        result = enhance(source, target, settings, follow_links=True)
        assert result.planned == 3, "a.png and what lies outside"
    assert result.skipped == 3
    assert result.passed_over == {"own": 3}


def test_what_a_person_names_may_be_a_link(
    folders: tuple[Path, Path, Path], settings: Settings, tmp_path: Path
) -> None:
    source, target, _ = folders
    (tmp_path / "from").symlink_to(source)
    (tmp_path / "to").symlink_to(target)
    target.mkdir()
    assert enhance(tmp_path / "from", tmp_path / "to", settings).enhanced == 1
    assert (target / "a.png").is_file()
    (tmp_path / "link.png").symlink_to(source / "a.png")
    assert enhance(tmp_path / "link.png", tmp_path / "b.png", settings).enhanced == 1


def test_nothing_is_written_through_a_link_in_the_target(
    folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    before = {path.name: path.read_bytes() for path in outside.iterdir()}
    fill(str(source), {"sub/deep/b.png": picture(3), "c.png": picture(4), "d.png": picture(5)})
    fill(str(source), {"q/bad.png": b"x"})
    target.mkdir()
    (target / "sub").symlink_to(outside)
    (target / "c.png").symlink_to(outside / "theirs.png")
    (target / "d.png").symlink_to(outside / "new.png")
    (target / "_mirnet" / "quarantine").mkdir(parents=True)
    (target / "_mirnet" / "quarantine" / "q").symlink_to(outside)
    result = enhance(source, target, settings)
    assert (result.enhanced, result.failed) == (1, 4)
    found = fates(target)
    link = f"{target / 'sub'}: is a link, and links are not followed"
    assert found["sub/deep/b.png"] == ("failed", f"name: {link}")
    assert (found["q/bad.png"][1] or "").startswith("not-an-image; quarantine: ")
    for key in ("c.png", "d.png"):
        assert (found[key][1] or "").startswith(f"conflict: {target / key} is nothing that we made")
        assert (target / key).is_symlink()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == before


def test_a_pipe_among_the_records_does_not_block(
    folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    (target / "_mirnet").mkdir(parents=True)
    os.mkfifo(target / "_mirnet" / "lock")
    with pytest.raises(StorageError, match="_mirnet"):
        enhance(source, target, settings)
    (target / "_mirnet" / "lock").unlink()
    (target / "sub").symlink_to(outside)
    (outside / ".mirnet-part-1").write_bytes(b"of another")
    (target / ".mirnet-part-2").write_bytes(b"left by the killed")
    assert enhance(source, target, settings).enhanced == 1
    assert not (target / ".mirnet-part-2").exists()
    assert (outside / ".mirnet-part-1").exists()


@pytest.mark.parametrize("name", ["_mirnet", "_mirnet/runs", "_mirnet/meta"])
def test_records_behind_a_link_stop_the_run(
    name: str, folders: tuple[Path, Path, Path], settings: Settings
) -> None:
    source, target, outside = folders
    (target / name).parent.mkdir(parents=True)
    (target / name).symlink_to(outside)
    before = sorted(outside.iterdir())
    with pytest.raises(StorageError, match="is a link, and links are not followed"):
        enhance(source, target, settings)
    assert sorted(outside.iterdir()) == before


def test_a_link_that_comes_after_the_listing_is_not_followed_either(
    folders: tuple[Path, Path, Path],
) -> None:
    source, target, outside = folders
    fill(str(source), {"sub/secret.png": picture(3)})
    store, out = LocalStore(source), LocalStore(target)
    keys = {info.key for info in store.list()}
    assert keys == {"a.png", "sub/secret.png"}
    shutil.rmtree(source / "sub")
    (source / "sub").symlink_to(outside)
    (source / "a.png").unlink()
    (source / "a.png").symlink_to(outside / "secret.png")
    with pytest.raises(KeyRefused, match="is a link"):
        list(store.list("sub/"))
    for key in keys:
        with pytest.raises((ObjectRefused, KeyRefused), match="is a link"):
            store.get(key)
        with pytest.raises((ObjectRefused, KeyRefused), match="is a link"):
            out.copy_from(store, key, key, metadata={})
    assert not list(contents(target))


def test_a_folder_that_turns_into_a_link_under_the_writer(tmp_path: Path) -> None:
    """Somebody swaps a folder of the target for a link, over and over."""
    outside, target = tmp_path / "outside", tmp_path / "out"
    outside.mkdir()
    target.mkdir()
    stop = threading.Event()

    def swap() -> None:
        for number in itertools.count():
            with suppress(OSError):  # the writer makes the folder again, at any moment
                (target / "sub").rename(target / f"aside{number}")
                (target / "sub").symlink_to(outside)
            with suppress(OSError):
                (target / "sub").unlink()
            if stop.is_set():
                return

    swapper = threading.Thread(target=swap)
    swapper.start()
    store, written = LocalStore(target), 0
    try:
        for number in range(300):
            try:
                store.put(f"sub/{number}", b"x")
                written += 1
            except StorageError:
                continue
    finally:
        stop.set()
        swapper.join()
    assert written
    assert not list(outside.iterdir())


def test_beneath(tmp_path: Path) -> None:
    place = Beneath(tmp_path).child("a/b").child("c")
    with pytest.raises(FileNotFoundError), place.open():
        pass
    with place.open(make=True):
        assert place.path.is_dir()
    (tmp_path / "a" / "link").symlink_to("b")
    with pytest.raises(LinkInTheWay, match="is a link"), Beneath(tmp_path, ("a", "link")).open():
        pass
    with pytest.raises(NotRegular):
        Beneath(tmp_path).open_file("a")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotRegular):
        Beneath(tmp_path).open_file("pipe")
    with pytest.raises(LinkInTheWay):
        Beneath(tmp_path, ("a",)).open_file("link")
    (tmp_path / "through").symlink_to(tmp_path / "a")
    with Beneath(tmp_path / "through").open():
        pass  # the base is what a person named
