"""``mirnet enhance`` as a person or a scheduler meets it: lines, exit codes, a bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mirnet.batch.lease import Lease, LeaseEntry
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings
from mirnet.images import decode
from mirnet.inference import Enhancer
from mirnet.storage.places import open_store
from tests.batch.samples import fill, picture

Command = Callable[..., int]


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(
    places: tuple[str, str], enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = places
    fill(source, {f"{n}.png": picture(n) for n in range(3)} | {"notes.txt": b"x"})
    assert enhance(source, target, "--dry-run", "--limit", "2") == 0
    told = capsys.readouterr().out
    assert told.splitlines()[:2] == ["0.png -> 0.png", "1.png -> 1.png"]
    assert "2 to enhance of 2 planned, 0 done already" in told
    assert enhance(source, target, "--dry-run") == 0
    assert "3 to enhance of 3 planned, 0 done already, 1 passed over" in capsys.readouterr().out
    if not source.startswith("s3://"):
        assert not Path(target).exists()
    assert not list(open_store(target, Settings()).list())


def test_a_night_its_rerun_and_a_bad_one(
    places: tuple[str, str],
    enhance: Command,
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, target = places
    dark = {f"{n}.png": picture(n) for n in range(3)}
    fill(source, dark | {"bad.png": b"x"})
    assert enhance(source, target, "--limit", "1", "--set", "enhance.contact_images=0") == 0
    assert enhance(source, target) == 0
    told = capsys.readouterr().out
    assert "bad.png: quarantined, not-an-image" in told
    assert "manifest: " in told
    assert (tmp_path / "reports" / "enhance.json").is_file()
    expected = Enhancer.load(folder).enhance_image(decode(dark["2.png"], name="2"))
    out = decode(open_store(target, Settings()).get("2.png").data, name="2")
    assert np.array_equal(out.pixels, expected.pixels)
    fill(source, {f"bad{n}.png": b"x" for n in range(9)})
    assert enhance(source, target) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith(f"mirnet: {source}: 9 of 9 images are bad (not-an-image 9)")
    assert len(error.splitlines()) == 1


def test_who_comes_second_is_told_and_ends_well(
    places: tuple[str, str], enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = places
    fill(source, {"a.png": picture(1)})
    with Lease(Ledger(open_store(f"{target}/_mirnet", Settings())), lease_s=30):
        assert enhance(source, target) == 0
    assert "is at work on" in capsys.readouterr().out
    assert enhance(source, target) == 0
    assert open_store(target, Settings()).head("a.png") is not None


def test_what_cannot_be_is_one_line(
    tmp_path: Path, enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(str(tmp_path / "in"), {"a.png": picture(1)})
    for words, code, why in (
        ((str(tmp_path / "in"), str(tmp_path / "in")), 2, "another place"),
        ((str(tmp_path / "none"), str(tmp_path / "out")), 2, "none"),
        (
            (str(tmp_path / "in"), str(tmp_path / "out"), "--set", "enhance.strength=2"),
            2,
            "strength",
        ),
    ):
        assert enhance(*words) == code
        error = capsys.readouterr().err.strip()
        assert len(error.splitlines()) == 1
        assert error.startswith("mirnet: ")
        assert why in error
    assert not (tmp_path / "out").exists()


def test_a_holder_that_has_been_there_for_too_long_is_an_error(
    enhance: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A scheduler sees it by the exit code: the same holder, night after night."""
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {"a.png": picture()})
    entry = LeaseEntry(5, "run", "host pid 1", 60.0, held_s=1e5)
    open_store(target, Settings()).put("_mirnet/lease.json", entry.dump())
    assert enhance(source, target) == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "host pid 1 is at work" in line
    assert "27.8 h, longer than enhance.max_held_s" in line
