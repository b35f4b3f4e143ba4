"""Commands that only read, where nothing was tracked yet: one line, and nothing is created."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.commands import run

PLAIN = [
    ("runs", "list"),
    ("runs", "seeds"),
    ("registry", "list"),
    ("registry", "history"),
]
OF_ONE = [
    ("runs", "compare", "a", "b"),
    ("runs", "compare", "models:/mirnet@champion", "b"),
    ("registry", "show", "models:/mirnet@champion"),
    ("registry", "verify", "models:/mirnet@champion"),
    ("registry", "verify"),
    ("registry", "promote", "models:/mirnet/1", "--why", "to see"),
    ("registry", "rollback", "--why", "to see"),
    ("reproduce", "models:/mirnet@champion"),
]


@pytest.mark.parametrize("words", PLAIN, ids=" ".join)
def test_a_list_says_that_nothing_is_there(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == 0
    shown = capsys.readouterr()
    assert "nothing was tracked in .mirnet yet" in " ".join(shown.out.split()) and not shown.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("words", OF_ONE, ids=" ".join)
def test_what_is_named_does_not_exist(
    words: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_TRUSTED_KEYS", "none.pub")  # not what is missed first
    assert run(monkeypatch, *words) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and ("no such" in told or "has no " in told)
    assert not list(tmp_path.iterdir())


def test_the_doctor_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mirnet.config import Settings
    from mirnet.doctor import check_champion, check_mlflow

    settings = Settings(workspace=tmp_path / "workspace")
    assert "nothing was tracked" in check_mlflow(settings).found
    assert check_champion(settings).found == "no champion yet"
    assert not list(tmp_path.iterdir())
