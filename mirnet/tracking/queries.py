"""Runs as tables: lists, differences between runs, mean and spread over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mirnet.config import Settings
from mirnet.errors import UsageError, first_line
from mirnet.tracking.client import connect, has_store, service_errors
from mirnet.tracking.runs import Purpose, experiment_name
from mirnet.tracking.versions import get_version

if TYPE_CHECKING:
    from mlflow.entities import Run

SEED_PARAM = "train.seed"
_RUN_ID = re.compile("[0-9a-f]{32}")
_MOST_RUNS = 1000
_MOST_NAMED = 5
_PURPOSES: tuple[Purpose, ...] = ("train", "evaluate")


@dataclass(frozen=True)
class RunSummary:
    """One run as the terminal shows it."""

    run_id: str
    name: str
    purpose: Purpose
    status: str
    started_s: float
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Difference:
    """One parameter, metric or tag that differs between runs."""

    kind: str
    key: str
    values: tuple[str, ...]


def list_runs(
    settings: Settings,
    *,
    purpose: Purpose | None = None,
    filter_string: str = "",
    limit: int = 20,
) -> list[RunSummary]:
    """Runs, newest first.

    Args:
        filter_string: MLflow's own filter, such as ``metrics.`eval/psnr` > 18``.

    Raises:
        UsageError: MLflow does not understand the filter.
        ServiceError: MLflow cannot be reached.
    """
    if not has_store(settings):
        return []
    from mlflow.exceptions import MlflowException

    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        experiments = {}
        for one in (purpose,) if purpose else _PURPOSES:
            found = client.get_experiment_by_name(experiment_name(one))
            if found is not None:
                experiments[found.experiment_id] = one
        if not experiments:
            return []
        try:
            runs = client.search_runs(
                list(experiments),
                filter_string,
                max_results=limit,
                order_by=["attributes.start_time DESC"],
            )
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise UsageError(
                f"--filter {filter_string}: {first_line(error)}. Names with a slash or a dot stand "
                "in backticks: metrics.`eval/psnr` > 18"
            ) from error
    return [_summary(run, experiments[run.info.experiment_id]) for run in runs]


def _summary(run: Run, purpose: Purpose) -> RunSummary:
    return RunSummary(
        run_id=run.info.run_id,
        name=run.info.run_name,
        purpose=purpose,
        status=run.info.status,
        started_s=run.info.start_time / 1000,
        params=_params_of(run),
        metrics=run.data.metrics,
        tags={k: v for k, v in run.data.tags.items() if k.startswith("mirnet.")},
    )


def _params_of(run: Run) -> dict[str, str]:
    """Without the sizes of the network that were not set: 0.1 logged them as ``None``."""
    params = run.data.params.items()
    return {k: v for k, v in params if v != "None" or not k.startswith("model.")}


def params_of(run_id: str, settings: Settings) -> dict[str, str]:
    """The parameters of a run, by ``section.key``.

    Raises:
        ServiceError: MLflow cannot be reached, or has no such run.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        return _params_of(client.get_run(run_id))


def find_run(reference: str, settings: Settings) -> RunSummary:
    """The run of this id or name, or of a prefix that belongs to one id or name only.

    A full id or name comes first, then whole words of a name (``autocontrast`` of
    ``autocontrast eval15``), then a prefix. Of several runs with one name it is the newest.

    Raises:
        UsageError: there is none, or the prefix belongs to several names, which are listed.
    """
    if _RUN_ID.fullmatch(reference):
        run = get_run(reference, settings)
        if run is not None:
            return run
    runs = list_runs(settings, limit=_MOST_RUNS)
    if not any(run.name.startswith(reference) for run in runs) and "'" not in reference:
        # older ones, by a filter of the server
        named = f"attributes.run_name LIKE '{reference}%'"
        runs += list_runs(settings, filter_string=named, limit=_MOST_RUNS)
    whole = [run for run in runs if reference in (run.run_id, run.name)]
    words = [run for run in runs if run.name.startswith(f"{reference} ")]
    begun = [r for r in runs if r.run_id.startswith(reference) or r.name.startswith(reference)]
    found = whole or words or begun
    if not found:
        raise UsageError(
            f"{reference}: no such run in {settings.mlflow_uri}; see `mirnet runs list`"
        )
    names = list(dict.fromkeys(run.name for run in found))
    if len(names) > 1:
        listed = ", ".join(names[:_MOST_NAMED]) + (", ..." if len(names) > _MOST_NAMED else "")
        raise UsageError(f"{reference}: {len(names)} names begin so ({listed}); write one in full")
    return found[0]


def get_run(run_id: str, settings: Settings) -> RunSummary | None:
    """The training or evaluation of this id; none if there is none.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    if not has_store(settings):
        return None
    from mlflow.exceptions import MlflowException

    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        try:
            run = client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        experiment = client.get_experiment(run.info.experiment_id).name
    purpose = next((one for one in _PURPOSES if experiment_name(one) == experiment), None)
    return None if purpose is None else _summary(run, purpose)


def find_training(reference: str, settings: Settings) -> RunSummary:
    """:func:`find_run`, or the run that trained ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``.

    Raises:
        UsageError: there is no such run or version.
    """
    if not reference.startswith("models:/"):
        return find_run(reference, settings)
    version = get_version(reference, settings)
    run = get_run(version.run_id, settings) if version.run_id else None
    if run is None:
        raise UsageError(f"{reference}: the run that trained it is not in {settings.mlflow_uri}")
    return run


def differences(runs: Sequence[RunSummary]) -> list[Difference]:
    """What differs between runs; metrics are always shown."""
    found = []
    for kind in ("tags", "params", "metrics"):
        columns = [getattr(run, kind) for run in runs]
        for key in sorted(set().union(*columns)):
            values = tuple(_shown(column.get(key)) for column in columns)
            if kind == "metrics" or len(set(values)) > 1:
                found.append(Difference(kind, key, values))
    return found


def same_recipe(runs: Sequence[RunSummary]) -> dict[str, list[RunSummary]]:
    """Finished runs grouped by data and all parameters except the seed, by a readable name."""
    groups: dict[str, list[RunSummary]] = {}
    for run in runs:
        if run.status != "FINISHED" or SEED_PARAM not in run.params:
            continue
        recipe = {k: v for k, v in run.params.items() if k != SEED_PARAM}
        identity = json.dumps([recipe, run.tags.get("mirnet.data_digest")], sort_keys=True)
        groups.setdefault(identity, []).append(run)
    named: dict[str, list[RunSummary]] = {}
    for members in groups.values():
        first = members[0]
        digest = first.tags.get("mirnet.data_digest", "")[:8]
        name = f"{first.params.get('preset', '?')} {first.params.get('model.name', '?')} {digest}"
        named[f"{name} #{len(named) + 1}"] = members
    return named


def with_scores(training: Sequence[RunSummary], scored: Sequence[RunSummary]) -> list[RunSummary]:
    """Training runs with the ``eval/`` metrics of their models, on the data that they trained on.

    Args:
        scored: evaluation runs of one split, the newest first.
    """
    scores: dict[tuple[str | None, str | None], Mapping[str, float]] = {}
    for run in scored:
        of = (run.tags.get("mirnet.training_run"), run.tags.get("mirnet.data_digest"))
        scores.setdefault(of, run.metrics)
    return [
        replace(run, metrics={**run.metrics, **scores.get((run.run_id, digest), {})})
        for run in training
        for digest in [run.tags.get("mirnet.data_digest")]
    ]


def _shown(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
