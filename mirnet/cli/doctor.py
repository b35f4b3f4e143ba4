"""``mirnet doctor``: checks of this machine with advice."""

from __future__ import annotations

import typer
from rich.table import Table
from rich.text import Text

from mirnet.cli.terminal import JsonOption, console, say_json

_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


def doctor(as_json: JsonOption = False) -> None:
    """Check this machine and the servers. Exit code 1 on a failure.

    Versions, disk, memory, GPU, clock, MLflow, S3, Ray, Prefect.
    """
    from mirnet.config import load_settings
    from mirnet.doctor import examine

    checks = examine(load_settings())
    if as_json:
        say_json(checks)
    else:
        table = Table("check", "", "found", "what to do")
        for check in checks:
            sign = Text(check.outcome, style=_STYLES.get(check.outcome, ""))
            table.add_row(check.name, sign, check.found, check.advice)
        console.print(table)
    if any(check.outcome == "failed" for check in checks):
        raise typer.Exit(1)
