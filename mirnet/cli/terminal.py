"""Output of the commands: without markup, control characters and the secrets of addresses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
import typer.core
from rich.console import Console
from rich.text import Text

from mirnet.redaction import shown, shown_json


class SafeConsole(Console):
    """A console for names from outside: text is shown as it is, and never as markup or emoji.

    Styles are given as :class:`rich.text.Text`, of our own words only.
    """

    def __init__(self) -> None:
        super().__init__(markup=False, emoji=False)

    def render_str(self, text: str, **options: Any) -> Text:
        """See :class:`rich.console.Console`; cells and titles of tables pass here as well."""
        return super().render_str(shown(text), **options)


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


@contextmanager
def _safe_usage() -> Iterator[None]:
    try:
        yield
    except typer.TyperException as error:
        error.message = shown(error.message)
        raise


console = SafeConsole()


def say(text: object) -> None:
    """Print one line."""
    typer.echo(shown(str(text)))


def say_json(value: Any, *, indent: int | None = 2) -> None:
    """Print one JSON document."""
    typer.echo(shown_json(value, indent=indent))
