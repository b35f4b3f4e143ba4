"""Help and messages show every bracket; Rich would take many of them for markup."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from mirnet.cli import app
from mirnet.cli.terminal import Commands
from tests.cli.commands import nodes, run

BRACKETS = "photos[1].jpg [red] ray[train] [/x] [default: data] [link=x]y[/link]"


@pytest.fixture(autouse=True)
def _wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "600")


def helped(commands: typer.Typer, *words: str) -> str:
    done = CliRunner().invoke(commands, [*words, "-h"])
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*n, id=" ".join(n[0])) for n in nodes()]
)
def test_help_has_every_text_as_it_is_written(path: tuple[str, ...], command: Any) -> None:
    told = helped(app, *path)
    for paragraph in (command.help or "").split("\n\n"):
        assert plain(paragraph) in told
    for parameter in command.params:
        assert plain(parameter.help or "") in told, parameter.name
        assert parameter.help, f"{parameter.name} has no help"
        if parameter.required:
            assert "[required]" in told
        elif parameter.default is not False and parameter.default not in (None, ""):
            assert f"[default: {parameter.default}]" in told
    for child in getattr(command, "commands", {}).values():
        assert child.hidden or plain(child.help.split("\n\n")[0]) in told


def test_any_bracket_survives_in_any_help_text() -> None:
    outer, inner = Commands(help=f"Outer {BRACKETS}"), Commands(help=f"Inner {BRACKETS}")
    outer.add_typer(inner, name="inner")

    def command(
        name: Annotated[str, typer.Argument(help=f"Argument {BRACKETS}")] = "a[b]",
        size: Annotated[int, typer.Option(help=f"Option {BRACKETS}")] = 1,
    ) -> None: ...

    command.__doc__ = f"Command {BRACKETS}\n\nMore {BRACKETS}"
    inner.command()(command)
    inner.command("other")(command)
    for words, texts in (
        ((), ("Outer", "Inner")),
        (("inner",), ("Inner", "Command")),
        (("inner", "command"), ("Command", "More", "Argument", "Option")),
    ):
        told = helped(outer, *words)
        for text in texts:
            assert f"{text} {BRACKETS}" in told
    assert "[default: a[b]]" in told


@pytest.mark.parametrize("name", ["photos[1].jpg", "a[red]b.jpg", "x[/red].jpg", "[bold].jpg"])
def test_messages_have_the_names_that_were_given(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_WORKSPACE", str(tmp_path / "workspace"))
    for words in (
        ("enhance", name, "out.jpg", "--model", name),
        ("enhance", "in.jpg", "out.jpg", f"--{name}"),
        ("enhance", "in.jpg", "out.jpg", name),
        ("data", "import", name),
        ("data", "status", "--data", name),
        ("weights", "import", name),
        ("verify", name),
        (name,),
    ):
        assert run(monkeypatch, *words) in (1, 2)
        told = capsys.readouterr()
        assert name in told.err and not told.out.strip()


def test_options_of_the_group_are_short_as_well() -> None:
    assert re.search(r"--help +-h", CliRunner().invoke(app, ["registry", "-h"]).output)
