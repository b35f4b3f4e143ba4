"""Names from outside are shown as they are, escaped: terminal, logs, JSON, pages, tables."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from mirnet.cli import main, terminal
from mirnet.config import load_settings
from mirnet.tracking import track
from tests.conftest import Command
from tests.planted import HOSTILE, controls


@pytest.fixture(autouse=True)
def logged() -> Iterator[None]:
    """Commands log to standard error at every level."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    factory = logging.getLogRecordFactory()
    root.handlers = []
    yield
    root.handlers, root.level = before, level
    logging.setLogRecordFactory(factory)


def test_names_of_files(
    tmp_path: Path, enhance: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 40, (24, 24, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    (source / HOSTILE).write_bytes(buffer.getvalue())
    (source / f"broken {HOSTILE}").write_bytes(buffer.getvalue()[:200])

    assert enhance(str(source), str(target), "--dry-run") == 0
    assert enhance(str(source), str(target)) in (0, 1)
    written = capfd.readouterr()
    assert r"a\r\nERROR forged\x1b]0;owned\x07\x9b31m\u202egpj[bold red]<img" in written.out
    assert not controls(written.out + written.err)
    assert not [line for line in written.out.splitlines() if line.startswith("ERROR")]

    assert enhance(str(source), str(target), "--dry-run", "--json") == 0
    document = capfd.readouterr().out
    assert not controls(document)
    json.loads(document)
    pages = list(target.rglob("*.html"))
    assert pages
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not controls(text) and "<img src=x>" not in text and "&lt;img src=x&gt;" in text


def test_names_of_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setattr(terminal.console, "width", 400)
    settings = load_settings()
    for number in range(2):
        with track(
            settings, purpose="train", name=f"{HOSTILE}{number}", tags={f"t{number}": HOSTILE}
        ) as run:
            run.log_metrics({"val/psnr": 1.0})
    for words in (["runs", "list"], ["runs", "compare", f"{HOSTILE}0", f"{HOSTILE}1"]):
        monkeypatch.setattr(sys, "argv", ["mirnet", "-v", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert not left.value.code
        written = capfd.readouterr()
        assert r"\x1b]0;owned\x07\x9b31m\u202egpj[bold red]<img src=x>.png" in written.out
        assert not controls(written.out + written.err)


def test_names_of_pairs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Great Expectations writes values into its pages without escaping them."""
    for split, names in {"our485": [HOSTILE, "b.png"], "eval15": ["c.png"]}.items():
        for side in ("low", "high"):
            folder = tmp_path / "data" / split / side
            folder.mkdir(parents=True)
            for name in names:
                PIL.Image.new("RGB", (8, 8)).save(folder / name)
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(tmp_path / "reports"))
    words = ["mirnet", "-v", "validate", "--data", str(tmp_path / "data"), "--params", "demo"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 3
    written = capfd.readouterr()
    assert not controls(written.out + written.err) and r"forged\x1b]0" in written.err
    pages = [page.read_text(encoding="utf-8") for page in tmp_path.rglob("*.html")]
    assert any(r"forged\x1b]0;owned\x07\x9b31m\u202egpj" in page for page in pages)
    assert not [page for page in pages if "<img src=x>" in page or controls(page) - {"\t"}]
