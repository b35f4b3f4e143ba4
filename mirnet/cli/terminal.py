"""Output of the commands: without markup, control characters and the secrets of addresses."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from copy import copy
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from mirnet.redaction import shown, shown_json
from mirnet.targets import check_file_target, check_folder_target

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document, and everything else on stderr")
]


def new_file(path: Path | None) -> Path | None:
    """Callback of an option or argument that names a file to write: refused before any work."""
    return path and check_file_target(path)


def new_folder(path: Path | None) -> Path | None:
    """Callback of one that names a folder to write."""
    return path and check_folder_target(path)


class SafeConsole(Console):
    """A console for names from outside: text is shown as it is, and never as markup or emoji.

    Styles are given as :class:`rich.text.Text`, of our own words only.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(markup=False, emoji=False, stderr=stderr)

    def render_str(self, text: str, **options: Any) -> Text:
        """See :class:`rich.console.Console`; cells and titles of tables pass here as well."""
        return super().render_str(shown(text), **options)


class SafeCommand(typer.core.TyperCommand):
    """A command whose help shows brackets as they are; with ``--json`` it prints JSON alone."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See :class:`typer.core.TyperCommand`."""
        typer.core.TyperCommand.format_help(_verbatim(self), ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """See :class:`typer.core.TyperCommand`."""
        return _verbatim_items(super().shell_complete(ctx, incomplete))

    def invoke(self, ctx: Any) -> Any:
        """See :class:`typer.core.TyperCommand`."""
        if not ctx.params.get("as_json"):
            return super().invoke(ctx)
        with _json_alone():
            return super().invoke(ctx)


class SafeCommands(typer.core.TyperGroup):
    """Commands whose usage errors quote the arguments without secrets and control characters."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """See :class:`typer.core.TyperGroup`; reads the options of the group itself."""
        with _safe_usage():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """See :class:`typer.core.TyperGroup`; reads the arguments of the command."""
        with _safe_usage():
            return super().invoke(ctx)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """See :class:`typer.core.TyperGroup`."""
        typer.core.TyperGroup.format_help(_verbatim(self), ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """See :class:`typer.core.TyperGroup`."""
        return _verbatim_items(super().shell_complete(ctx, incomplete))


class Commands(typer.Typer):
    """A group of :class:`SafeCommand`; the whole command and each of its groups is one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            cls=SafeCommands,
            no_args_is_help=True,
            pretty_exceptions_enable=False,
            context_settings={"help_option_names": ["-h", "--help"]},
            **({"add_completion": False} | options),
        )

    def command(self, name: str | None = None, **options: Any) -> Callable[[Any], Any]:
        """See :class:`typer.Typer`."""
        return super().command(name, cls=SafeCommand, **options)


def _verbatim(command: Any) -> Any:
    """A copy whose help texts Rich prints as they are, since it takes them for markup."""
    if command.rich_markup_mode != "rich":
        return command
    twin = _escaped(command)
    twin.params = [_escaped(parameter) for parameter in command.params]
    if hasattr(command, "commands"):
        twin.commands = {name: _escaped(child) for name, child in command.commands.items()}
    return twin


def _escaped(part: Any) -> Any:
    twin = copy(part)
    for field in ("help", "short_help", "epilog"):
        if text := getattr(part, field, None):
            setattr(twin, field, escape(text))
    return twin


def _verbatim_items(items: list[Any]) -> list[Any]:
    for item in items:
        item.help = item.help and escape(item.help)
    return items


@contextmanager
def _safe_usage() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        error.message = shown(error.message)
        raise


console = SafeConsole()
_json_stream: TextIO | None = None


@contextmanager
def _json_alone() -> Iterator[None]:
    """Print on stderr whatever is printed in the block, by us or a library, except for JSON."""
    global _json_stream
    before, _json_stream = _json_stream, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _json_stream = before


def say(text: object) -> None:
    """Print one line."""
    typer.echo(shown(str(text)))


def note(text: object) -> None:
    """Print one line on standard error, beside the result."""
    typer.echo(shown(str(text)), err=True)


def say_json(value: Any, *, indent: int | None = 2, secrets: bool = False) -> None:
    """Print one JSON document.

    Args:
        secrets: print them; otherwise they are replaced, as everywhere.
        value: of JSON's types, dataclasses, pydantic models, paths and times; numbers that JSON
            does not have, such as NaN, become null.
    """
    from pydantic import TypeAdapter

    plain = json.loads(TypeAdapter(Any).dump_json(value))
    text = json.dumps(plain, indent=indent) if secrets else shown_json(plain, indent=indent)
    typer.echo(text, file=_json_stream)
