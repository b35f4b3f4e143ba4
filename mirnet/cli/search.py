"""``mirnet search``: sizes, objective and schedule by trials of equal time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mirnet.cli import completion
from mirnet.cli.terminal import JsonOption, new_folder, note, say, say_json

if TYPE_CHECKING:
    from mirnet.params import Params
    from mirnet.search.outcome import SearchResult
    from mirnet.search.rows import Trial
    from mirnet.search.space import SearchSpace


def search(
    data: Annotated[Path, typer.Argument(help="Folder in the LoL layout")],
    minutes: Annotated[
        float, typer.Option("--minutes", min=1, help="Wall-clock time of all of it, page included")
    ],
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            help="Preset or YAML file of the default [params.yaml]",
            autocompletion=completion.presets,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one parameter"),
    ] = None,
    space: Annotated[
        Path | None, typer.Option("--space", help="YAML file of the space [docs/search.md]")
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(
            "--network",
            metavar="NAME",
            help="Search over sizes of this; repeatable [the default's]",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the drawn configurations")] = 0,
    threads: Annotated[
        int, typer.Option("--threads", min=1, help="Threads of a trial on the processor")
    ] = 1,
    trial_minutes: Annotated[
        float | None,
        typer.Option("--trial-minutes", min=0.1, help="Time of one trial [a sixth of --minutes]"),
    ] = None,
    into: Annotated[
        Path,
        typer.Option("--into", callback=new_folder, help="Folder of trials, page and preset"),
    ] = Path("reports/search"),
    allow_modified: Annotated[
        bool,
        typer.Option("--allow-modified", help="Search on data that differ from the pinned version"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Search for a better network and recipe; the same command goes on after an interruption."""
    from mirnet import stages
    from mirnet.cli.progress import progress

    run = stages.load_run_config(params, set_)
    chosen = _space(space, network, run.params)
    version = stages.check_version(data, allow_modified=allow_modified)
    try:
        with progress("searching", "seconds") as count:
            result = stages.search(
                data,
                run,
                chosen,
                minutes=minutes,
                version=version,
                into=into,
                seed=seed,
                threads=threads,
                trial_minutes=trial_minutes,
                progress=count,
                on_trial=_tell,
            )
    except KeyboardInterrupt:
        note("the same command goes on from here")
        raise
    say_json(result) if as_json else _show(result)


def _space(file: Path | None, networks: list[str] | None, params: Params) -> SearchSpace:
    from mirnet.errors import UsageError
    from mirnet.search.space import default_space, read_space

    if file is not None and networks:
        raise UsageError("--space names its networks: give either it or --network")
    return read_space(file) if file else default_space(networks or [params.model.name])


def _tell(trial: Trial) -> None:
    scored = "" if trial.psnr is None else f", {trial.psnr:.2f} dB"
    note(f"{trial.title}: {trial.reason or trial.state}{scored}")


def _show(result: SearchResult) -> None:
    counts = ", ".join(f"{count} {state}" for state, count in result.trials.items() if count)
    say(result.verdict)
    say(f"configurations: {counts}; {result.spent_minutes:.1f} of {result.minutes:g} minutes")
    if result.preset:
        say(f"params: {result.preset}")
    say(f"page: {result.page}")
