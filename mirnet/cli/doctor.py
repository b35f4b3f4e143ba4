"""``mirnet doctor``: checks of this machine with advice."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mirnet.cli.terminal import console, say_json

app = typer.Typer(invoke_without_command=True, help="Check this machine and the servers.")

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


@app.callback()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Versions, disk, memory, GPU, clock, MLflow, S3, Ray, Prefect. Exit code 1 on a failure."""
    from mirnet.config import load_settings
    from mirnet.doctor import examine

    checks = examine(load_settings())
    if as_json:
        say_json([check.model_dump() for check in checks])
    else:
        table = Table("check", "", "found", "what to do")
        for check in checks:
            sign = Text(check.outcome, style=_STYLES.get(check.outcome, ""))
            table.add_row(check.name, sign, check.found, check.advice)
        console.print(table)
    if any(check.outcome == "failed" for check in checks):
        raise typer.Exit(1)
