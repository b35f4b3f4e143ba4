"""``mirnet registry``: model versions, their aliases and the history of the aliases."""

from __future__ import annotations

import time
from typing import Annotated

import typer
from rich.table import Table

from mirnet.cli.terminal import console

app = typer.Typer(help="Registered models: list, promote, roll back.", no_args_is_help=True)

NameOption = Annotated[str, typer.Option("--name", help="Registered model")]
WhyOption = Annotated[str, typer.Option("--why", help="Reason, recorded in the history")]
ReferenceArgument = Annotated[str, typer.Argument(help="models:/NAME/NUMBER or models:/NAME@ALIAS")]


@app.command("list")
def list_(name: NameOption = "mirnet") -> None:
    """All versions, newest first, with aliases and the gate's decision."""
    from mirnet.config import load_settings
    from mirnet.tracking.registry import COMMIT_TAG, DATA_TAG, list_versions

    versions = list_versions(name, load_settings())
    table = Table("version", "aliases", "status", "made", "run", "data", "commit", "gate")
    for version in versions:
        table.add_row(
            version.version,
            ", ".join(version.aliases),
            version.status,
            time.strftime("%Y-%m-%d %H:%M", time.localtime(version.created_s)),
            (version.run_id or "")[:8],
            version.tags.get(DATA_TAG, "")[:8],
            version.tags.get(COMMIT_TAG, "")[:8],
            version.tags.get("mirnet.gate", ""),
        )
    console.print(table if versions else f"{name} has no versions")


@app.command()
def show(reference: ReferenceArgument) -> None:
    """Tags, aliases and files of one version."""
    from mirnet.config import load_settings
    from mirnet.tracking.registry import get_version, resolve

    settings = load_settings()
    version = get_version(reference, settings)
    console.print(f"{version.name} version {version.version}, {version.status}")
    console.print(f"  aliases: {', '.join(version.aliases) or 'none'}")
    console.print(f"  run: {version.run_id}")
    for key, value in sorted(version.tags.items()):
        console.print(f"  {key}: {value}", highlight=False)
    console.print(f"  folder: {resolve(reference, settings).folder}", soft_wrap=True)


@app.command()
def promote(reference: ReferenceArgument, why: WhyOption) -> None:
    """Make a version champion without the gate, after a test that it loads and runs."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import promote as move
    from mirnet.tracking.registry import get_version

    settings = load_settings()
    version = get_version(reference, settings)
    change = move(version, why=why, settings=settings)
    if change is None:
        console.print(f"{version.name} version {version.version} is champion already")
        return
    console.print(
        f"champion of {version.name}: {change.from_version or 'none'} -> {change.version}"
    )


@app.command()
def rollback(why: WhyOption, name: NameOption = "mirnet") -> None:
    """Exchange champion and previous."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import rollback as move

    change = move(name, why=why, settings=load_settings())
    console.print(f"champion of {name}: {change.from_version} -> {change.version}")


@app.command()
def history(name: NameOption = "mirnet") -> None:
    """Every change of an alias: who, when, why and from what."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import history as read

    changes = read(name, load_settings())
    table = Table("when", "who", "what", "alias", "from", "to", "state", "why")
    for change in changes:
        table.add_row(
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change.time_s)),
            change.who,
            change.action,
            change.alias,
            change.from_version or "none",
            change.version or "none",
            change.state,
            change.why,
        )
    console.print(table if changes else f"no alias of {name} has ever moved")
