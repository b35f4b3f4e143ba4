"""``mirnet data upload``: photographs of a folder into a bucket."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet.config import load_settings
from mirnet.storage.places import open_store
from tests.cli.commands import parsed, run


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Two, and what lies beside photographs."""
    folder = tmp_path / "photographs"
    (folder / "a folder.jpg").mkdir(parents=True)
    for name in ("a.jpg", "b.PNG", "notes.txt", "._a.jpg", ".hidden.png"):
        (folder / name).write_bytes(name.encode())
    (folder / "gone.jpg").symlink_to(folder / "nowhere.jpg")
    return folder


def test_photographs_are_sent_once(
    s3: str,
    photographs: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = open_store(s3, load_settings())
    store.put("a.jpg", b"was there")
    assert run(monkeypatch, "data", "upload", str(photographs), s3) == 0
    told = capsys.readouterr().out
    assert f"{s3}: 1 of 2 photographs sent" in told
    assert "1 of them with other contents, which are kept, such as a.jpg" in told
    assert {each.key for each in store.list()} == {"a.jpg", "b.PNG"}
    assert store.get("a.jpg").data == b"was there", "what is there is kept"
    assert store.get("b.PNG").data == b"b.PNG"
    assert store.get("b.PNG").content_type == "image/png"
    assert run(monkeypatch, "data", "upload", str(photographs), s3, "--json") == 0
    assert parsed(capsys.readouterr().out) == {
        "target": s3,
        "photographs": 2,
        "sent": 0,
        "differ": ["a.jpg"],
    }


def test_what_cannot_be_sent_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    said = {"none": "No such file", "file": "Not a directory", "empty": "no photographs"}
    for name, why in said.items():
        source = str(tmp_path / name)
        assert run(monkeypatch, "data", "upload", source, str(tmp_path / "target")) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert why in line and line.startswith(f"mirnet: {source}")
    assert run(monkeypatch, "data", "upload", ".", "ftp://dark/tonight") == 2
    assert not (tmp_path / "target").exists()
