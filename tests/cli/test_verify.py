"""``mirnet verify``: lines, JSON, exit codes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from mirnet.cli import main
from mirnet.config import Settings
from mirnet.storage.places import open_store
from tests.batch.samples import enhance_batch, fill, picture


def run(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["mirnet", "verify", *words])
    with pytest.raises(SystemExit) as left:
        main()
    return int(left.value.code or 0)


def test_verify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, {f"{n}.png": picture(n) for n in range(3)})
    assert run(monkeypatch, target) == 2
    assert "left no records there" in capsys.readouterr().err
    enhance_batch(source, target)
    assert run(monkeypatch, target) == 0
    assert f"{target}: 3 outputs, 3 intact" in capsys.readouterr().out

    store = open_store(target, Settings())
    size = len(store.get("1.png").data)
    store.delete("0.png")
    store.put("1.png", b"x")
    assert run(monkeypatch, target, "--quick") == 1
    told = capsys.readouterr()
    assert told.out.splitlines() == [
        f"1.png: truncated (1 bytes instead of {size})",
        "0.png: deleted",
        f"{target}: 3 outputs, 1 intact; versions and sizes only",
    ]
    assert told.err == f"mirnet: {target}: 2 of 3 outputs are not what was written\n"

    assert run(monkeypatch, target, "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["outputs"], found["intact"], found["deleted"], found["truncated"]) == (3, 1, 1, 1)
    assert {each["output"]: each["problem"] for each in found["problems"]} == {
        "0.png": "deleted",
        "1.png": "truncated",
    }
