"""``mirnet models``: the networks that can be trained, what they cost and cannot do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from mirnet.cli.terminal import JsonOption, console, say, say_json

if TYPE_CHECKING:
    from mirnet.inference.catalogue import NetworkFacts


def models(
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="Time each network here: megapixels per second; takes minutes"
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Networks for model.name: parameters, GMAC at 400x600, objective, limits, paper, licence."""
    from mirnet.cli.progress import progress
    from mirnet.inference.catalogue import network_facts
    from mirnet.models.registry import list_architectures

    found = []
    with progress("measuring" if measure else "counting", "networks") as count:
        for facts in network_facts(measure=measure):
            found.append(facts)
            count(len(found), len(list_architectures()))
    if as_json:
        say_json(found)
        return
    console.print(_table(found, measured=measure))
    papers = {f.family: f"{f.paper}; weights: {f.licence or 'none official'}" for f in found}
    for family, paper in papers.items():
        say(f"{family}: {paper}")


def _table(found: list[NetworkFacts], *, measured: bool) -> Table:
    table = Table(
        Column("name", no_wrap=True),
        Column("parameters", justify="right", no_wrap=True),
        Column("GMAC", justify="right", no_wrap=True),
        "trained with",
        "limits",
    )
    if measured:
        table.add_column("MP/s", justify="right", no_wrap=True)
    for facts in found:
        speed = facts.megapixels_per_s
        table.add_row(
            facts.name,
            f"{facts.parameters:,}",
            f"{facts.gmac:,.2f}",
            facts.trained_with,
            "; ".join(facts.limits),
            *([f"{speed:.2f}" if speed else "-"] if measured else []),
        )
    return table
