"""``mirnet stack``: the servers of the pipeline on this machine."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mirnet.cli.terminal import Commands, JsonOption, console, new_file, say, say_json

if TYPE_CHECKING:
    from mirnet.stack.plan import StackPaths
    from mirnet.stack.state import StackState

app = Commands(help="The whole stack on this machine: PostgreSQL, S3, MLflow, Prefect, Ray.")

HomeOption = Annotated[
    Path | None,
    typer.Option("--home", help="Folder of the stack [MIRNET_STACK_HOME, else .mirnet/stack]"),
]


def _home(folder: Path | None) -> StackPaths:
    from mirnet.config import load_settings
    from mirnet.stack.plan import StackPaths

    return StackPaths((folder or load_settings().stack_home).resolve())


@app.command()
def up(
    home: HomeOption = None,
    project: Annotated[
        Path, typer.Option("--project", help="Folder with the flows and the data")
    ] = Path(),
    timeout: Annotated[float, typer.Option("--timeout", min=1, help="Seconds to wait")] = 420,
    sqlite: Annotated[
        bool,
        typer.Option("--sqlite", help="Use SQLite for a new stack even if PostgreSQL is installed"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Start the stack and wait until every service is healthy. Idempotent."""
    from mirnet.stack import control

    place = _home(home)
    seen: dict[str, str] = {}

    def progress(state: StackState) -> None:
        for name, service in state.services.items():
            if seen.get(name) != service.phase:
                seen[name] = service.phase
                say(f"{name:15} {service.phase:11} {service.message}".rstrip())

    state = control.up(
        place,
        project=project,
        timeout_s=timeout,
        progress=progress,
        database="sqlite" if sqlite else None,
    )
    if as_json:
        say_json(state)
        return
    typer.echo()
    say(f"Prefect  {state.services['prefect-server'].address}  (user admin)")
    say(f"MLflow   {state.services['mlflow'].address}  (user admin)")
    say(f"Ray      {state.services['ray-head'].address}")
    say(f"passwords: {place.secrets}")
    typer.echo('a shell that reaches them: eval "$(mirnet stack env)"')


@app.command()
def down(
    home: HomeOption = None,
    purge: Annotated[
        bool, typer.Option("--purge", help="Remove databases, buckets, secrets and logs too")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """End every process of the stack; data stay without --purge. Exit code 1 without a stack."""
    from mirnet.stack import control

    place = _home(home)
    stopped = control.down(place, purge=purge)
    if as_json:
        say_json({"home": place.root, "stopped": stopped, "purged": purge})
        return
    ended = f"stopped {', '.join(stopped)}" if stopped else "nothing was running"
    data = "data removed" if purge else "data kept (--purge removes them)"
    say(f"{place.root}: {ended}; {data}")


@app.command()
def status(
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Each service: healthy or not, restarts, address. Exit code 1 unless all are healthy."""
    from mirnet.stack import control

    place = _home(home)
    state = control.status(place)
    if as_json:
        say_json(state)
    elif not state.services:
        say(f"no stack in {place.root}")
    else:
        _show(state)
    if not state.healthy:
        raise typer.Exit(1)


def _show(state: StackState) -> None:
    table = Table("service", "state", "for", "pid", "restarts", "address", "message")
    for name, service in state.services.items():
        table.add_row(
            name,
            service.phase,
            f"{time.time() - service.since:.0f} s" if service.since else "",
            str(service.pid or ""),
            str(service.restarts),
            service.address,
            service.message,
        )
    console.print(table)


@app.command()
def backup(
    archive: Annotated[
        Path, typer.Argument(callback=new_file, help="A new file; it holds secrets, mode 0600")
    ],
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Databases, model store and secrets into one file, while the stack runs or is stopped."""
    from mirnet.stack.backup import back_up

    index = back_up(_home(home), archive.absolute(), report=typer.echo)
    if as_json:
        size = archive.stat().st_size
        say_json({"file": archive, "bytes": size, "members": len(index.sha256)})
        return
    typer.echo(f"{archive}: {archive.stat().st_size:,} bytes, {len(index.sha256):,} members")


@app.command()
def restore(
    archive: Annotated[Path, typer.Argument(help="A file of `mirnet stack backup`")],
    home: HomeOption = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Move databases that are here aside first")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back into a stack that is down, or into an empty folder."""
    from mirnet.stack.backup import restore as bring_back

    index = bring_back(_home(home), archive, replace=replace, report=typer.echo)
    if as_json:
        say_json({"file": archive, "made_at": index.made_at, "members": len(index.sha256)})
        return
    typer.echo(f"restored as of {index.made_at:%Y-%m-%d %H:%M:%S} UTC; now run `mirnet stack up`")


@app.command()
def logs(
    service: Annotated[str, typer.Argument(help="A service, or supervisor")] = "supervisor",
    home: HomeOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Number of lines")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until Ctrl-C")] = False,
) -> None:
    """The last lines of a service's log."""
    from mirnet.stack import control

    path = control.log_path(_home(home), service)
    for line in control.last_lines(path, lines):
        say(line)
    if not follow:
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        file.seek(0, 2)
        while True:
            line = file.readline()
            if line:
                say(line.rstrip("\n"))
            else:
                time.sleep(0.5)


@app.command()
def env(
    home: HomeOption = None,
    as_json: JsonOption = False,
) -> None:
    """Variables that a shell needs to reach the stack. Prints secrets: use it in eval."""
    from mirnet.stack import control

    variables = control.environment(_home(home))
    if as_json:
        say_json(variables, secrets=True)
        return
    for name, value in variables.items():
        typer.echo(f"export {name}={shlex.quote(value)}")
