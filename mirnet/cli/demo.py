"""``mirnet demo``: the whole pipeline on sample photographs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mirnet.cli.terminal import new_folder

HOME = Path("mirnet-demo")


def demo(
    home: Annotated[
        Path, typer.Option("--home", callback=new_folder, help="Folder that keeps all of it")
    ] = HOME,
    show: Annotated[bool, typer.Option("--open", help="Open the report in a browser")] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Start over if there is a demo")] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SECTION.KEY=VALUE", help="Change one parameter of the training"
        ),
    ] = None,
) -> None:
    """The whole pipeline on sample photographs, in minutes: data, training, gate, a bucket.

    A stopped demo is resumed; of a complete one the outcome is shown again.
    """
    from mirnet.extras import need, program

    need("demo", "sklearn")
    program("demo", "weed")
    options = [*(["--open"] if show else []), *(["--anew"] if anew else [])]
    options += [word for value in set_ or () for word in ("--set", value)]
    # the library does not import the flows. In place of this process, so that signals reach it;
    # -P: not a folder `flows` of the working directory
    command = [sys.executable, "-P", "-m", "flows.demo", "--home", str(home), *options]
    sys.stdout.flush()
    os.execv(sys.executable, command)
