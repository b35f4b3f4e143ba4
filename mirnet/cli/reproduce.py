"""``mirnet reproduce``: a registered version trained again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mirnet.cli import completion
from mirnet.cli.terminal import JsonOption, console, say, say_json

if TYPE_CHECKING:
    from mirnet.stages.reproducing import Reproduction


def reproduce(
    version: Annotated[
        str,
        typer.Argument(
            help="models:/NAME@ALIAS or models:/NAME/NUMBER", autocompletion=completion.versions
        ),
    ],
    data: Annotated[Path, typer.Option("--data", help="The data that it was trained on")] = Path(
        "data"
    ),
    seeds: Annotated[
        int,
        typer.Option("--seeds", min=1, max=100, help="Trainings at most; the recorded seed first"),
    ] = 3,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Train although commit, data or params differ")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a registered version again: same weights, or a score within the spread of seeds.

    Exit code 0: reproduced. 3: not. 2: cannot be tried, since commit, data or params differ.
    """
    from mirnet import stages
    from mirnet.cli.progress import progress
    from mirnet.errors import GateRefused

    # the params of the version count, not those of this folder
    run = stages.load_run_config("cpu")
    with progress("reproducing", "epochs") as count:
        result = stages.reproduce(
            version, data, run, num_seeds=seeds, anyway=anyway, progress=count
        )
    say_json(result) if as_json else _show(result)
    if not result.reproduced:
        raise GateRefused(result.verdict)


def _show(result: Reproduction) -> None:
    for deviation in result.deviations:
        say(f"differs: {deviation}")
    table = Table("seed", "PSNR", "weights", "run", title=f"{result.split} pairs", box=None)
    table.add_row("recorded", f"{result.psnr:.2f}", "", result.run_id[:8])
    for seed in result.seeds:
        digest, run_id = seed.weights_digest[:12], (seed.run_id or "")[:8]
        table.add_row(str(seed.seed), f"{seed.psnr:.2f}", digest, run_id)
    console.print(table)
    if result.reproduced:
        say(result.verdict)
