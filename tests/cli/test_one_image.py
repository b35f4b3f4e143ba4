"""``mirnet enhance`` with one image: one sentence; and with --json: one document."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mirnet.images import decode
from mirnet.models import build, save_model
from tests.batch.samples import fill, picture
from tests.cli.commands import run

Command = Callable[..., int]


@pytest.fixture
def enhance(enhance: Command) -> Command:
    """A model that leaves images as they are, so that no output is judged harmful."""
    return lambda *words: enhance(*words, "--set", "enhance.strength=0")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    fill(str(tmp_path / "here"), {"photo.jpg": picture(1, format="JPEG")})
    return tmp_path / "here"


def test_one_sentence(here: Path, enhance: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert enhance("photo.jpg", "bright.jpg") == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r"photo\.jpg -> bright\.jpg, \d+\.\d s, model\n", out)
    assert err == ""
    assert enhance("photo.jpg", "bright.jpg") == 0
    assert capsys.readouterr().out == "photo.jpg -> bright.jpg, done already\n"
    assert enhance("photo.jpg", "folder/") == 0
    assert capsys.readouterr().out.startswith("photo.jpg -> folder/photo.jpg, ")
    fill(str(here), {"häßlich [bold] x.jpg": picture(2, format="JPEG")})
    assert enhance("häßlich [bold] x.jpg", "夜 1.png") == 0
    assert capsys.readouterr().out.startswith("häßlich [bold] x.jpg -> 夜 1.png, ")
    fill(str(here), {"new\nline\x1b[31m.jpg": picture(3, format="JPEG")})
    assert enhance("new\nline\x1b[31m.jpg", "red.png") == 0
    out = capsys.readouterr().out
    assert out.startswith(r"new\nline\x1b[31m.jpg -> red.png, ")
    (here / "new\nline\x1b[31m.jpg").unlink()
    assert enhance("new\nline\x1b[31m.jpg", "red.png") == 2
    assert "\x1b" not in capsys.readouterr().err
    (here / "red.png").unlink()
    assert {path.name for path in here.iterdir()} == {
        *("photo.jpg", "bright.jpg", "folder", "häßlich [bold] x.jpg", "夜 1.png")
    }


@pytest.mark.parametrize(
    ("name", "data", "code", "said"),
    [
        ("cut.jpg", picture(1, format="JPEG")[:500], 1, "truncated: damaged or cut short"),
        ("text.jpg", b"no picture", 2, "not-an-image: its content is none of the formats"),
        ("none.jpg", b"", 2, "empty: the file is empty"),
        ("notes.txt", b"no picture", 2, "not-an-image: its content is none of the formats"),
    ],
)
def test_on_failure_the_reason_itself(
    name: str,
    data: bytes,
    code: int,
    said: str,
    here: Path,
    enhance: Command,
    capsys: pytest.CaptureFixture[str],
) -> None:
    fill(str(here), {name: data})
    for _ in range(2):  # the second time as well
        assert enhance(name, "bright.jpg") == code
        out, err = capsys.readouterr()
        assert out == ""
        assert len(err.splitlines()) == 1
        assert re.match(rf"mirnet: (.*/)?{name}: {said}", err)
    assert not (here / "bright.jpg").exists()


def test_all_registered_names_of_the_formats(
    here: Path, enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(str(here), {f"a{n}": picture(1, format="JPEG") for n in (".jfif", ".jpe")})
    fill(str(here), {"a.dib": picture(1, format="BMP")})
    for name in ("a.jfif", "a.jpe", "a.dib"):
        assert enhance(name, f"../out/{name}") == 0
        assert decode((here.parent / "out" / name).read_bytes(), name=name).pixels.shape[0] == 32
    assert enhance("a.dib", "../out/b.jfif") == 0
    assert (here.parent / "out/b.jfif").read_bytes().startswith(b"\xff\xd8")


def transparent(alpha: int) -> bytes:
    picture = PIL.Image.new("RGBA", (32, 32), (20, 30, 10, alpha))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def test_what_the_format_of_the_output_cannot_hold_is_no_fault_of_the_input(
    here: Path, enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(str(here), {"shot.png": transparent(255), "glass.png": transparent(99)})
    assert enhance("shot.png", "../out/shot.jpg") == 0
    assert enhance("glass.png", "../out/glass.bmp") == 0
    capsys.readouterr()
    for _ in range(2):
        assert enhance("glass.png", "../out/glass.jpg") == 1
        said = "glass.png: output: JPEG holds no transparency: write one of PNG, WEBP, TIFF, BMP"
        assert capsys.readouterr().err == f"mirnet: {said}\n"
    written = [path for path in (here.parent / "out").rglob("*glass*") if path.is_file()]
    assert [path.name for path in written] == ["glass.bmp"]


def test_what_another_model_made_is_said_to_be_kept(
    here: Path, enhance: Command, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhance("photo.jpg", "bright.jpg") == 0
    assert enhance(".", "../all") == 0
    save_model(build("mirnet-xs", n_feat=16), folder)
    capsys.readouterr()
    assert enhance("photo.jpg", "bright.jpg") == 0
    said = "by another model; enhance.on_new_model=redo does it again"
    assert capsys.readouterr().out == f"photo.jpg -> bright.jpg, done already {said}\n"
    assert enhance(".", "../all") == 0
    assert f"skipped, {said} │ 2" in capsys.readouterr().out
    assert enhance("photo.jpg", "bright.jpg", "--set", "enhance.on_new_model=redo") == 0
    assert re.match(r"photo\.jpg -> bright\.jpg, \d", capsys.readouterr().out)


def test_a_stranger_at_the_output(
    here: Path, enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "bright.jpg").write_bytes(b"mine")
    assert enhance("photo.jpg", "bright.jpg") == 1
    err = capsys.readouterr().err
    assert err.startswith(f"mirnet: photo.jpg: conflict: {here / 'bright.jpg'} is nothing that we")
    assert (here / "bright.jpg").read_bytes() == b"mine"


def test_strength_and_precision_are_options(
    here: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(here.parent / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(here.parent / "reports"))
    words = ("enhance", "photo.jpg", "bright.png", "--model", str(folder), "--params", "demo")
    options = ("--set", "enhance.strength=0.5", "--strength", "0", "--precision", "float32")
    others = ("--exposure", "-1", "--denoise", "0.5")
    assert run(monkeypatch, *words, *options, *others, "--json") == 0
    assert json.loads(capsys.readouterr().out)["enhanced"] == 1
    expected = decode((here / "photo.jpg").read_bytes(), name="photo").pixels
    assert np.array_equal(decode((here / "bright.png").read_bytes(), name="x").pixels, expected)
    for bad, said in (
        (("--strength", "2"), "--strength 2: Input should be less than or equal to 1"),
        (("--exposure", "1"), "--exposure 1: write auto, a mean brightness between 0 and 1"),
        (("--denoise", "-1"), "--denoise -1: Input should be greater than or equal to 0"),
        (("--strength", "much"), "--strength much: Input should be a valid number"),
        (("--precision", "fp8"), "--precision fp8: Input should be 'auto', 'float32' or 'bf16'"),
        (("--set", "enhance.strength=2"), "--set enhance.strength=2: enhance.strength: Input"),
    ):
        assert run(monkeypatch, *words, *bad, "--json") == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(f"mirnet: {said}") and len(err.splitlines()) == 1


def test_one_document(
    places: tuple[str, str], enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = places
    fill(source, {"a.png": picture(1), "b.png": picture(2), "notes.txt": b"x", "._a.png": b"x"})
    assert enhance(source, target, "--json", "--dry-run") == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan == {
        "todo": 2,
        "planned": 2,
        "skipped": 0,
        "outputs_deleted": 0,
        "outputs_changed": 0,
        "passed_over": {"junk": 1, "suffix": 1},
        "images": [{"input": key, "output": key} for key in ("a.png", "b.png")],
    }
    assert enhance(source, target, "--json") == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert (result["enhanced"], result["picture"], err) == (2, None, "")
    assert result["passed_over"] == {"junk": 1, "suffix": 1}
    assert enhance(source, target) == 0
    said = capsys.readouterr().out
    assert "passed over: junk" in said
    assert "passed over: suffix" in said
    fill(source, {f"{n}.png": b"x" for n in range(5)})
    assert enhance(source, target, "--json") == 1
    out, err = capsys.readouterr()
    bad = json.loads(out)
    assert (bad["quarantined"], len(err.splitlines())) == (5, 1)
    assert bad["problem"].startswith("5 of 5")
    assert enhance(f"{source}/none", target, "--json") == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)


@pytest.mark.parametrize("name", ["photo", "photo.dat", "photo.JPG.bak", "a.photo.1"])
def test_the_bytes_of_a_named_picture_decide(here: Path, enhance: Command, name: str) -> None:
    (here / "photo.jpg").rename(here / name)
    assert enhance(name, "bright.jpg") == 0
    assert decode((here / "bright.jpg").read_bytes(), name="bright.jpg")


def test_one_document_of_one_image(
    here: Path, enhance: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    assert enhance("photo.jpg", "bright.jpg", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    told = result["picture"]
    assert (told["input"], told["output"], told["fate"]) == ("photo.jpg", "bright.jpg", "enhanced")
    assert told["luminance_after"] > 0
