"""``mirnet doctor``: checks of this machine with advice."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.table import Table

from mirnet.cli.terminal import console

app = typer.Typer(invoke_without_command=True, help="Check this machine and the servers.")

_SIGNS = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "failed": "[red]failed[/]"}


@app.callback()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON")] = False,
) -> None:
    """Versions, disk, memory, GPU, clock, MLflow, S3, Ray, Prefect. Exit code 1 on a failure."""
    from mirnet.config import load_settings
    from mirnet.doctor import examine

    checks = examine(load_settings())
    if as_json:
        typer.echo(json.dumps([check.model_dump() for check in checks], indent=2))
    else:
        table = Table("check", "", "found", "what to do")
        for check in checks:
            sign = _SIGNS.get(check.outcome, check.outcome)
            table.add_row(check.name, sign, check.found, check.advice)
        console.print(table)
    if any(check.outcome == "failed" for check in checks):
        raise typer.Exit(1)
