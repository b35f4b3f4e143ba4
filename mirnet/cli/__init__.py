"""The ``mirnet`` command: the stages by name, and further commands in groups.

Nothing heavy is imported before a command runs.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mirnet.cli import (
    completion,
    data as data_commands,
    demo,
    doctor,
    keys,
    lineage,
    models,
    registry,
    reproduce,
    runs,
    s3,
    search,
    stack,
    ui,
    verify,
    weights,
)
from mirnet.cli.terminal import Commands, JsonOption, new_folder, say, say_json
from mirnet.errors import GateRefused, MirnetError, TooManyBad, UsageError
from mirnet.full_disk import full_disk_explained

app = Commands(
    name="mirnet",
    help="Low-light image enhancement with MIRNet: validate, train, evaluate, promote, enhance.",
    add_completion=True,
)

app.add_typer(data_commands.app, name="data")
app.add_typer(weights.app, name="weights")
app.add_typer(runs.app, name="runs")
app.add_typer(registry.app, name="registry")
app.add_typer(keys.app, name="keys")
app.add_typer(stack.app, name="stack")

DataOption = Annotated[
    Path, typer.Option("--data", help="Folder in the LoL layout: our485/{low,high}, eval15/...")
]
ParamsOption = Annotated[
    str | None,
    typer.Option(
        "--params",
        help="Preset (demo, cpu, paper, ...) or YAML file [params.yaml]",
        autocompletion=completion.presets,
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one parameter; repeatable"),
]


def _version(asked: bool) -> None:
    if asked:
        from mirnet.cli.version import describe

        say(describe())
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[  # noqa: ARG001 - its callback prints
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Show version and git commit"
        ),
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Write log lines")] = False,
) -> None:
    from mirnet.config import load_settings
    from mirnet.logs import configure

    configure(logging.INFO if verbose else logging.WARNING, load_settings().log_format)


@app.command()
def validate(
    data: DataOption = Path("data"),
    params: ParamsOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a data set: every finding by pair and measured value. Exit code 3 when it blocks."""
    from mirnet import stages
    from mirnet.cli.progress import progress
    from mirnet.cli.show import show_validation

    run = stages.load_run_config(params, set_)
    with progress("validating", "pairs") as count:
        result = stages.validate(data, run, progress=count)
    say_json(result) if as_json else show_validation(result)
    if not result.passed:
        raise GateRefused(stages.blocking_message(result))


@app.command()
def train(
    data: DataOption = Path("data"),
    params: ParamsOption = None,
    set_: SetOption = None,
    out: Annotated[
        Path, typer.Option("--out", callback=new_folder, help="Folder for the best weights")
    ] = Path("model"),
    run_name: Annotated[
        str | None,
        typer.Option("--run-name", help="Name of the run; the name of a stopped run resumes it"),
    ] = None,
    allow_modified: Annotated[
        bool,
        typer.Option("--allow-modified", help="Train on data that differ from the pinned version"),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a network on the training pairs; the best weights by validation PSNR are kept."""
    from mirnet import stages
    from mirnet.cli.show import show_training, training_progress

    run = stages.load_run_config(params, set_)
    version = stages.check_version(data, allow_modified=allow_modified)
    with training_progress(run.params.train.num_epochs) as progress:
        result = stages.train(
            data, run, version=version, model_dir=out, run_name=run_name, progress=progress
        )
    say_json(result) if as_json else show_training(result)


@app.command()
def evaluate(
    data: DataOption = Path("data"),
    params: ParamsOption = None,
    set_: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Folder, models:/NAME@ALIAS, base or baseline:NAME [the last trained]",
            autocompletion=completion.models,
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="eval15 or val [from the params]")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Score a model and the baselines on held-out pairs: PSNR and SSIM with intervals."""
    from mirnet import stages
    from mirnet.cli.progress import progress
    from mirnet.cli.show import show_evaluation

    overrides = [*(set_ or []), *([f"evaluate.split={split}"] if split else [])]
    run = stages.load_run_config(params, overrides)
    with progress("evaluating", "images") as count:
        result = stages.evaluate(data, run, model=model, progress=count)
    say_json(result) if as_json else show_evaluation(result)


@app.command()
def promote(
    params: ParamsOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register the evaluated model; make it champion if the gate agrees. Exit code 3 if not."""
    from mirnet import stages
    from mirnet.cli.progress import progress
    from mirnet.cli.show import show_promotion

    run = stages.load_run_config(params, set_)
    with progress("promoting"):
        result = stages.promote(run)
    say_json(result) if as_json else show_promotion(result)
    if result.alias is None:
        raise GateRefused(f"{result.name} version {result.version}: " + "; ".join(result.reasons))


@app.command()
def enhance(
    source: Annotated[str, typer.Argument(help="Image, folder or s3://bucket/prefix")],
    target: Annotated[str, typer.Argument(help="Image, folder or s3://bucket/prefix")],
    params: ParamsOption = None,
    set_: SetOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Folder or models:/NAME@ALIAS or base [the champion]",
            autocompletion=completion.models,
        ),
    ] = None,
    strength: Annotated[
        str | None,
        typer.Option(
            "--strength",
            metavar="0..1.5",
            help="0 gives the input, 1 the output, more goes beyond it [enhance.strength]",
        ),
    ] = None,
    exposure: Annotated[
        str | None,
        typer.Option(
            "--exposure",
            metavar="BRIGHTNESS",
            help="auto, a mean luma such as 0.45, or stops such as +0.5 [enhance.exposure]",
        ),
    ] = None,
    denoise: Annotated[
        str | None,
        typer.Option(
            "--denoise",
            metavar="0..1",
            help="1 as smooth as the network, 0 as grainy as the input [enhance.denoise]",
        ),
    ] = None,
    even: Annotated[
        bool,
        typer.Option("--even", help="One brightness for images of one scene [enhance.even]"),
    ] = False,
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision", metavar="NAME", help="auto, float32 or bf16 [enhance.precision]"
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="Maximum number of images")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be done; write nothing")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Enhance dark images. Bad ones are quarantined with a reason, done ones are skipped."""
    from mirnet import stages
    from mirnet.cli.progress import progress
    from mirnet.cli.show import plan_document, show_enhancement, show_plan
    from mirnet.config import refuse_credentials
    from mirnet.params import with_enhance_options

    refuse_credentials(source, target, model)
    run = stages.load_run_config(params, set_)
    run = replace(
        run,
        params=with_enhance_options(
            run.params,
            strength=strength,
            exposure=exposure,
            denoise=denoise,
            even="true" if even else None,
            precision=precision,
        ),
    )
    model = model or stages.usual_model(source, target, run)
    if dry_run:
        with stages.plan_enhancement(source, target, run, model=model, limit=limit) as plan:
            say_json(plan_document(plan)) if as_json else show_plan(plan)
        return
    try:
        # of one image there is nothing to count
        with progress("enhancing", "" if Path(source).is_file() else "images") as count:
            result = stages.enhance(source, target, run, model=model, limit=limit, progress=count)
    except TooManyBad as bad:
        if as_json:
            say_json(bad.result)
        raise
    if as_json:
        say_json(result)
    else:
        show_enhancement(result)


app.command()(demo.demo)
app.command()(ui.ui)
app.command()(verify.verify)
app.command()(reproduce.reproduce)
app.command()(search.search)
app.command()(lineage.lineage)
app.command()(doctor.doctor)
app.command()(models.models)
app.command()(s3.s3)
app.command("export", hidden=True)(weights.export)  # the name of before, still good


def main() -> None:
    """Run the command; one line and an exit code for every expected error."""
    from mirnet.config import apply_engine_defaults
    from mirnet.logs import protect_output

    apply_engine_defaults()
    protect_output()
    try:
        with full_disk_explained():
            # not app(), which replaces the hook for errors that nobody catches
            typer.main.get_command(app)()
    except MirnetError as error:
        print(f"mirnet: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:  # installed with --no-deps: docs/installing.md
        if not error.name or error.name.split(".")[0] in ("mirnet", "flows"):
            raise
        print(f"mirnet: {error.name}: not installed; pip install mirnet-pipeline", file=sys.stderr)
        sys.exit(UsageError.exit_code)
    except KeyboardInterrupt:
        print("mirnet: interrupted", file=sys.stderr)
        sys.exit(130)
