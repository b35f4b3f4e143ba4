"""``mirnet lineage``: provenance of an enhanced image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mirnet.cli.terminal import JsonOption, say, say_json

if TYPE_CHECKING:
    from mirnet.batch.manifest import Row
    from mirnet.config import Settings


def lineage(
    picture: Annotated[str, typer.Argument(help="Output or quarantined copy: path or s3://...")],
    as_json: JsonOption = False,
) -> None:
    """Provenance of an enhanced image: input, model, MLflow run, data, code, gate decision."""
    from mirnet.batch.provenance import trace
    from mirnet.config import load_settings

    settings = load_settings()
    origin = trace(picture, settings)
    row = origin.row
    facts = {
        "picture": picture,
        "fate": row.status,
        "reason": row.reason,
        "input": origin.input_address,
        "input version": row.input_version,
        "model": row.model_name,
        "model version": row.model_version,
        "model note": row.model_note,
        "MLflow run": row.model_run_id,
        "weights": row.weights_digest,
        "data digest": row.data_digest,
        "git commit": row.git_commit,
        "gate": _gate(row, settings),
        "batch run": row.run_id,
        "settings digest": row.settings_digest,
        "strength": row.strength,
        "exposure": row.exposure,
        "denoise": row.denoise,
        "evened": None if row.evened is None else f"{row.evened:+g} stops",
    }
    facts = {name: value for name, value in facts.items() if value is not None}
    if as_json:
        say_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        say(f"{name:<{width}}  {value}")


def _gate(row: Row, settings: Settings) -> str | None:
    """The gate's decision on the model version, from the registry."""
    if row.model_version is None or row.model_run_id is None:
        return None  # a folder, or the model in the package
    from mirnet.errors import ServiceError, UsageError
    from mirnet.tracking.registry import get_version

    try:
        tags = get_version(f"models:/{row.model_name}/{row.model_version}", settings).tags
    except (ServiceError, UsageError) as error:
        return f"not known: {error}"
    decision, reasons = tags.get("mirnet.gate"), tags.get("mirnet.gate_reasons")
    return f"{decision}: {reasons}" if decision else "not known: the version carries no decision"
