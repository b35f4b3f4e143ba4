"""``mirnet registry``: model versions, their aliases and the history of the aliases."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mirnet.cli import completion
from mirnet.cli.progress import progress
from mirnet.cli.terminal import Commands, JsonOption, console, new_file, say, say_json

if TYPE_CHECKING:
    from mirnet.tracking.audit import Finding
    from mirnet.tracking.registry import RegisteredVersion

app = Commands(help="Registered models: list, promote, roll back.")

NameOption = Annotated[str, typer.Option("--name", help="Registered model")]
WhyOption = Annotated[str, typer.Option("--why", help="Reason, recorded in the history")]
ReferenceArgument = Annotated[
    str,
    typer.Argument(
        help="models:/NAME/NUMBER or models:/NAME@ALIAS", autocompletion=completion.versions
    ),
]
AliasesArgument = Annotated[
    str | None,
    typer.Argument(
        help="models:/NAME/NUMBER or models:/NAME@ALIAS [all aliases]",
        autocompletion=completion.versions,
    ),
]


@app.command("list")
def list_(name: NameOption = "mirnet", as_json: JsonOption = False) -> None:
    """All versions, newest first, with aliases and the gate's decision."""
    from mirnet.config import load_settings
    from mirnet.tracking.client import nothing_yet
    from mirnet.tracking.registry import COMMIT_TAG, DATA_TAG, list_versions

    settings = load_settings()
    versions = list_versions(name, settings)
    if as_json:
        say_json([_document(version) for version in versions])
        return
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
    console.print(table if versions else f"{name} has no versions{nothing_yet(settings)}")


def _document(version: RegisteredVersion) -> dict[str, Any]:
    """A version for JSON; of its signature only that there is one: `verify` says what it holds."""
    from mirnet.tracking.versions import SIGNATURE_TAG

    tags = {key: value for key, value in version.tags.items() if key != SIGNATURE_TAG}
    return {**asdict(version), "tags": tags, "signed": version.signed}


@app.command()
def show(reference: ReferenceArgument, as_json: JsonOption = False) -> None:
    """Tags, aliases and files of one version."""
    from mirnet.config import load_settings
    from mirnet.tracking.registry import get_version, resolve
    from mirnet.tracking.versions import SIGNATURE_TAG

    settings = load_settings()
    version = get_version(reference, settings)
    with progress("verifying"):
        folder = resolve(reference, settings).folder
    if as_json:
        say_json({**_document(version), "folder": folder})
        return
    console.print(f"{version.name} version {version.version}, {version.status}")
    console.print(f"  aliases: {', '.join(version.aliases) or 'none'}")
    console.print(f"  run: {version.run_id}")
    for key, value in sorted(version.tags.items()):
        if key != SIGNATURE_TAG:  # `verify` says what it holds
            console.print(f"  {key}: {value}", highlight=False)
    console.print(f"  signed: {'yes' if version.signed else 'no'}")
    console.print(f"  folder: {folder}", soft_wrap=True)


@app.command()
def verify(
    reference: AliasesArgument = None,
    name: NameOption = "mirnet",
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle",
            callback=new_file,
            help="Write the signature of REFERENCE for other verifiers",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare every file, tag and alias with what was signed. Exit code 1 if anything differs."""
    from mirnet.atomic import write_atomically
    from mirnet.config import load_settings
    from mirnet.errors import UntrustedModel, UsageError
    from mirnet.tracking.audit import bundle_of, examine

    settings = load_settings()
    if bundle is not None and reference is None:
        raise UsageError("--bundle takes the signature of one version: name it")
    # of one version there is nothing to count
    with progress("verifying", "versions" if reference is None else "") as count:
        findings = examine(name, settings, reference, progress=count)
    if as_json:
        say_json([_finding(found) for found in findings])
    else:
        for found in findings:
            say(f"{found.reference}: {_summary(found)}")
            for problem in found.problems:
                say(f"  {problem}")
    bad = [found.reference for found in findings if found.problems]
    if bad:
        raise UntrustedModel(f"{', '.join(bad)}: not what was signed")
    if bundle is not None and reference is not None:
        say(f"signature: {write_atomically(bundle, bundle_of(reference, settings))}")


def _finding(found: Finding) -> dict[str, Any]:
    statement = found.statement
    return {
        "reference": found.reference,
        "version": found.version.version,
        "problems": found.problems,
        "signed": found.version.signed,
        "key_id": statement and statement.key_id,
        "files": statement and len(statement.files),
        "gate": statement and statement.facts.gate,
    }


def _summary(found: Finding) -> str:
    statement, label = found.statement, f"version {found.version.version}"
    if statement is None:
        return f"{label}, {'refused' if found.problems else 'unsigned, which is allowed'}"
    gate, count = statement.facts.gate, len(statement.files)
    told = f"{label}, {count} files, gate: {gate.outcome}, signed by {gate.who} with key "
    return told + statement.key_id[:16]


@app.command()
def sign(
    reference: AliasesArgument = None,
    name: NameOption = "mirnet",
    as_json: JsonOption = False,
) -> None:
    """Prove and sign versions from before signatures, or signed with a former key.

    They load, run and are those that were registered.
    Refuses a version that neither the gate nor a person decided about, and an alias that is not
    where the history has it.
    """
    from mirnet.config import load_settings
    from mirnet.tracking.audit import sign as sign_earlier

    with progress("signing", "versions") as count:
        done = sign_earlier(name, load_settings(), reference, progress=count)
    if as_json:
        say_json({"signed": done})
        return
    for line in done or ["all is signed already"]:
        say(line)


@app.command()
def add(
    folder: Annotated[Path, typer.Argument(help="Model folder, e.g. of `mirnet weights import`")],
    report: Annotated[
        Path | None,
        typer.Option("--report", help="Evaluation of the folder [the last `mirnet evaluate`]"),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(
            "--params",
            help="Preset or YAML file with the name and the gate [params.yaml]",
            autocompletion=completion.presets,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Change one parameter; repeatable"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model that was not trained here; the gate decides whether it becomes champion.

    As `mirnet promote`, after `mirnet evaluate --model FOLDER`. Exit code 3 if the gate refuses.
    """
    from mirnet import stages
    from mirnet.cli.show import show_promotion
    from mirnet.errors import GateRefused
    from mirnet.results import EvaluationResult

    run = stages.load_run_config(params, set_)
    evaluation = EvaluationResult.load(report) if report else None
    with progress("registering"):
        result = stages.promote(run, evaluation=evaluation, model_dir=folder)
    say_json(result) if as_json else show_promotion(result)
    if result.alias is None:
        raise GateRefused(f"{result.name} version {result.version}: " + "; ".join(result.reasons))


@app.command()
def promote(reference: ReferenceArgument, why: WhyOption, as_json: JsonOption = False) -> None:
    """Make a version champion without the gate, after a test that it loads and runs."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import promote as move
    from mirnet.tracking.history import AliasChange
    from mirnet.tracking.registry import get_version

    settings = load_settings()
    version = get_version(reference, settings)
    with progress("promoting"):
        change = move(version, why=why, settings=settings)
    if as_json:
        nothing = dict.fromkeys(AliasChange.model_fields) | {"name": version.name}
        facts = change.model_dump() if change else nothing | {"version": version.version}
        say_json({"moved": change is not None, **facts})
        return
    if change is None:
        console.print(f"{version.name} version {version.version} is champion already")
        return
    console.print(
        f"champion of {version.name}: {change.from_version or 'none'} -> {change.version}"
    )


@app.command()
def rollback(why: WhyOption, name: NameOption = "mirnet", as_json: JsonOption = False) -> None:
    """Exchange champion and previous; put back a champion that something else has moved."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import rollback as move

    with progress("rolling back"):
        change = move(name, why=why, settings=load_settings())
    if as_json:
        say_json({"moved": True, **change.model_dump()})
        return
    if change.from_version == change.version:
        console.print(f"champion of {name}: version {change.version} again, as in its history")
        return
    console.print(f"champion of {name}: {change.from_version} -> {change.version}")


@app.command()
def history(name: NameOption = "mirnet", as_json: JsonOption = False) -> None:
    """Every change of an alias: who, when, why and from what."""
    from mirnet.config import load_settings
    from mirnet.tracking.aliases import records
    from mirnet.tracking.client import nothing_yet

    settings = load_settings()
    found = records(name, settings)
    if as_json:
        say_json(
            [{**r.change.model_dump(), "signed": r.signed, "trusted": r.trusted} for r in found]
        )
        return
    table = Table("when", "who", "what", "alias", "from", "to", "state", "signed", "why")
    for record in found:
        change = record.change
        table.add_row(
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(change.time_s)),
            change.who,
            change.action,
            change.alias,
            change.from_version or "none",
            change.version or "none",
            change.state,
            "yes" if record.signed and record.trusted else "wrong" if record.signed else "no",
            change.why,
        )
    console.print(table if found else f"no alias of {name} has ever moved{nothing_yet(settings)}")
