"""``mirnet runs``: MLflow runs on the terminal."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from mirnet.cli import completion
from mirnet.cli.progress import progress
from mirnet.cli.terminal import Commands, JsonOption, console, new_file, say, say_json

if TYPE_CHECKING:
    from mirnet.stages.comparing import ComparedModels

app = Commands(help="MLflow runs: list, compare, spread over seeds.")

# the first one that exists: evaluations have eval/, trainings have val/
_HEADLINE = {
    "PSNR": ("eval/psnr", "val/best_psnr", "val/psnr"),
    "SSIM": ("eval/ssim", "val/ssim"),
}


@app.command("list")
def list_(
    purpose: Annotated[
        Literal["train", "evaluate", "search"] | None,
        typer.Option("--purpose", help="Only these runs [train and evaluate]"),
    ] = None,
    filter_: Annotated[
        str, typer.Option("--filter", help='MLflow\'s filter, e.g. "metrics.`eval/psnr` > 18"')
    ] = "",
    limit: Annotated[
        int, typer.Option("--limit", min=1, max=1000, help="Maximum number of runs")
    ] = 20,
    as_json: JsonOption = False,
) -> None:
    """The newest runs with status and main metrics: eval/ of evaluations, val/ of trainings."""
    from mirnet.config import load_settings
    from mirnet.tracking.client import nothing_yet
    from mirnet.tracking.queries import list_runs

    settings = load_settings()
    runs = list_runs(settings, purpose=purpose, filter_string=filter_, limit=limit)
    if as_json:
        say_json(runs)
        return
    # no border, to fit in 80 columns
    table = Table("run", "name", "status", "started", "data", *_HEADLINE, box=None)
    for run in runs:
        found = [[run.metrics[k] for k in keys if k in run.metrics] for keys in _HEADLINE.values()]
        table.add_row(
            run.run_id[:8],
            run.name,
            run.status,
            time.strftime("%m-%d %H:%M", time.localtime(run.started_s)),
            run.tags.get("mirnet.data_digest", "")[:8],
            *(f"{values[0]:.4g}" if values else "" for values in found),
        )
    console.print(table if runs else f"no runs{nothing_yet(settings)}")


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="Ids or names of runs, unambiguous prefixes of them, or models:/NAME@ALIAS",
            autocompletion=completion.runs,
        ),
    ],
    html: Annotated[
        Path | None,
        typer.Option(
            "--html",
            callback=new_file,
            help="Write a page of two models: scores per image, images, groups",
        ),
    ] = None,
    data: Annotated[
        Path, typer.Option("--data", help="The scored data, for the images of the page")
    ] = Path("data"),
    as_json: JsonOption = False,
) -> None:
    """Differences between runs: tags, parameters, and all metrics. With --html, a page of two."""
    from mirnet.config import load_settings
    from mirnet.errors import UsageError
    from mirnet.tracking.queries import differences, find_training

    if html is not None:
        if len(runs) != 2:
            raise UsageError(f"--html compares two models, not {len(runs)}")
        made = _compare_page(runs[0], runs[1], html, data)
        say_json(made) if as_json else _show_page(made)
        return
    settings = load_settings()
    found = [find_training(reference, settings) for reference in runs]
    if as_json:
        say_json({"runs": found, "differences": differences(found)})
        return
    table = Table("", "", *(f"{run.name} {run.run_id[:8]}" for run in found))
    for difference in differences(found):
        table.add_row(difference.kind, difference.key, *difference.values)
    console.print(table)


def _compare_page(first: str, second: str, html: Path, data: Path) -> ComparedModels:
    from mirnet import stages

    run = stages.load_run_config()
    with progress("comparing"):
        return stages.compare_models(first, second, run, data=data, target=html)


def _show_page(made: ComparedModels) -> None:
    for line in (made.verdict, made.note, f"page: {made.page}"):
        if line:
            say(line)


@app.command()
def seeds(
    metric: Annotated[
        str,
        typer.Option(
            "--metric", help="Metric of the training, or of its evaluation: eval/psnr, ..."
        ),
    ] = "eval/psnr",
    split: Annotated[
        Literal["eval15", "val"], typer.Option("--split", help="Split of eval/ metrics")
    ] = "eval15",
    as_json: JsonOption = False,
) -> None:
    """Mean and spread of one metric over runs that differ only in their seed."""
    from mirnet.config import load_settings
    from mirnet.evaluation.statistics import spread
    from mirnet.tracking.client import nothing_yet
    from mirnet.tracking.queries import SEED_PARAM, list_runs, same_recipe, with_scores

    settings = load_settings()
    trained = list_runs(settings, purpose="train", limit=1000)
    of_split = f"tags.`mirnet.split` = '{split}' and tags.`mirnet.method` = 'mirnet'"
    scored = list_runs(settings, purpose="evaluate", filter_string=of_split, limit=1000)
    groups = same_recipe(with_scores(trained, scored))
    recipes = []
    for name, members in groups.items():
        # a seed with several runs counts once, by its newest run
        values = {run.params[SEED_PARAM]: run.metrics.get(metric) for run in reversed(members)}
        given = {seed: value for seed, value in values.items() if value is not None}
        if len(given) >= 2:
            recipes.append((name, sorted(given), spread(list(given.values()))))
    if as_json:
        found = [{"recipe": n, "metric": metric, "seeds": s, **asdict(v)} for n, s, v in recipes]
        say_json(found)
        return
    table = Table("recipe", "seeds", f"mean {metric}", "std", "least", "most")
    for name, seeds_of, values_of in recipes:
        figures = (values_of.mean, values_of.std, values_of.low, values_of.high)
        table.add_row(name, ", ".join(seeds_of), *(f"{f:.4g}" for f in figures))
    none = f"no recipe has {metric} of two seeds or more{nothing_yet(settings)}"
    console.print(table if table.row_count else none)


@app.command()
def deliver(
    path: Annotated[
        Path | None,
        typer.Argument(help="File named by the warning of a run [all that wait in the workspace]"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Send the queued records of a run to MLflow."""
    from mirnet.config import load_settings
    from mirnet.tracking.outbox import deliver as send
    from mirnet.tracking.runs import PENDING

    settings = load_settings()
    waiting = [path] if path else sorted((settings.workspace / PENDING).glob("*.jsonl"))
    count = sum(send(settings.mlflow_uri, each) for each in waiting)
    say_json({"delivered": count}) if as_json else console.print(f"{count} entries delivered")
