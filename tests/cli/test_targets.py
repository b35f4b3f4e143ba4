"""What a command writes is checked before its work: a target that cannot be is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import leaves, run

# parameters that name what a command writes
FILES: dict[tuple[str, ...], str] = {
    ("data", "overlap"): "html",
    ("registry", "verify"): "bundle",
    ("runs", "compare"): "html",
    ("stack", "backup"): "archive",
    ("weights", "export"): "target",
}
FOLDERS: dict[tuple[str, ...], str] = {
    ("data", "import"): "data",
    ("data", "sample"): "destination",
    ("data", "synthesize"): "destination",
    ("demo",): "home",
    ("keys", "new"): "out",
    ("s3",): "folder",
    ("search",): "into",
    ("train",): "out",
    ("weights", "import"): "out",
}


@pytest.mark.parametrize("path", [*FILES, *FOLDERS], ids=" ".join)
def test_a_target_in_the_way_is_one_line(
    path: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dark.png").write_bytes(b"image")
    command = dict(leaves())[path]
    name = FILES.get(path) or FOLDERS[path]
    wrong = "." if path in FILES else "dark.png"
    words: list[str] = []
    for parameter in command.params:
        if parameter.name == name:
            options = [wrong] if parameter.param_type_name == "argument" else None
            words += options or [parameter.opts[0], wrong]
        elif parameter.param_type_name == "argument" and parameter.required:
            words.append("x")
    for target in (wrong, "dark.png/below"):
        given = [target if word == wrong else word for word in words]
        assert run(monkeypatch, *path, *given) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"mirnet: {target}") and "folder" in line
    assert [child.name for child in tmp_path.iterdir()] == ["dark.png"]
