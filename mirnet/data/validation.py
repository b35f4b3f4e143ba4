"""The data gate: a Great Expectations suite over the manifest. Only this module imports it."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import great_expectations as gx
import pandas as pd
from great_expectations.data_context.types.base import (
    DataContextConfig,
    InMemoryStoreBackendDefaults,
    ProgressBarsConfig,
)
from great_expectations.expectations.core.expect_column_values_to_be_between import (
    ExpectColumnValuesToBeBetween,
)
from great_expectations.expectations.core.expect_column_values_to_be_in_set import (
    ExpectColumnValuesToBeInSet,
)
from great_expectations.expectations.core.expect_column_values_to_be_null import (
    ExpectColumnValuesToBeNull,
)

from mirnet.config import Settings
from mirnet.data.checks import DataCheck, add_verdict_columns, checks
from mirnet.data.manifest import build_manifest
from mirnet.data.splits import split_pairs
from mirnet.data.validation_page import render_validation
from mirnet.data.versioning import data_version, take_snapshot
from mirnet.errors import DataError
from mirnet.params import ValidateParams
from mirnet.results import DataVersion, Finding, ValidationResult

log = logging.getLogger(__name__)


def validate_data(
    root: Path,
    params: ValidateParams,
    *,
    reports_dir: Path,
    settings: Settings,
    version: DataVersion | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationResult:
    """Validate a data set. Bad data are findings, not exceptions.

    Writes ``manifest.parquet`` and the page ``data_docs/index.html`` below ``reports_dir``.

    Raises:
        DataError: no such folder, or no LoL layout in it.
    """
    started = time.monotonic()
    snapshot = take_snapshot(root)
    manifest = build_manifest(
        root, cache_dir=settings.manifest_cache, snapshot=snapshot, progress=progress
    )
    reports_dir.mkdir(parents=True, exist_ok=True)
    manifest_path = reports_dir / "manifest.parquet"
    manifest.to_parquet(manifest_path, index=False)
    findings = judge(manifest, params, digest=snapshot.digest)
    passed = all(finding.severity != "critical" for finding in findings)
    splits: dict[str, tuple[str, ...]] = {}
    if passed:
        try:
            splits = split_pairs(manifest, params)
        except DataError as error:
            findings += (
                Finding(check="splits", severity="critical", pair=str(root), message=str(error)),
            )
            passed = False
    pairs = manifest[manifest["kind"] == "pair"]
    docs_dir = reports_dir / "data_docs"
    result = ValidationResult(
        version=version or data_version(root, snapshot=snapshot),
        num_pairs={str(k): int(v) for k, v in pairs["split"].value_counts().sort_index().items()},
        findings=findings,
        passed=passed,
        splits=splits,
        manifest_path=str(manifest_path),
        docs_path=str(docs_dir / "index.html"),
        seconds=time.monotonic() - started,
    )
    shutil.rmtree(docs_dir, ignore_errors=True)  # may hold pages of an earlier version
    render_validation(
        docs_dir / "index.html",
        result,
        root=root,
        manifest=manifest,
        suite=checks(params, digest=snapshot.digest),
    )
    return result


def judge(
    manifest: pd.DataFrame, params: ValidateParams, *, digest: str | None = None
) -> tuple[Finding, ...]:
    """Findings of a manifest, critical ones first."""
    table = add_verdict_columns(manifest.reset_index(drop=True), params)
    table["row"] = table.index
    suite = checks(params, digest=digest)
    findings: list[Finding] = []
    results = _run_suite(table, suite)
    for check, result in zip(suite, results, strict=True):
        unexpected = result.get("unexpected_index_list") or []
        refused = [table.loc[bad["row"]] for bad in unexpected]
        if check.share is not None and refused:
            judged = int(table[check.column].notna().sum())
            findings.append(_set_finding(check, judged, refused))
        else:
            findings += [_finding(check, row, row[check.column]) for row in refused]
    return tuple(sorted(findings, key=lambda f: (f.severity, f.pair, f.check)))


def _finding(check: DataCheck, row: pd.Series, value: Any) -> Finding:
    plain = value if isinstance(value, str) else float(value)
    fields: dict[str, Any] = {**{str(k): v for k, v in row.items()}, "value": plain}
    pair = str(row["pair"])
    return Finding(
        check=check.name,
        severity=check.severity,
        pair=pair,
        other=str(row[check.other]) if check.other else None,
        value=plain,
        message=f"{pair}: {check.message.format(**fields)}",
    )


def _set_finding(check: DataCheck, judged: int, refused: list[pd.Series]) -> Finding:
    share = len(refused) / judged
    message = check.message.format(value=share, bad=len(refused), judged=judged)
    named = ", ".join(bad["pair"] for bad in refused[:5]) + (", ..." if len(refused) > 5 else "")
    return Finding(
        check=check.name,
        severity=check.severity,
        pair="*",
        value=share,
        message=f"{message}: {named}",
    )


def _run_suite(table: pd.DataFrame, suite: list[DataCheck]) -> list[dict[str, Any]]:
    """The engine's result of each failed check."""
    context = _context()
    batch = (
        context.data_sources.add_pandas("files")
        .add_dataframe_asset("manifest")
        .add_batch_definition_whole_dataframe("all")
    )
    expectations = context.suites.add(
        gx.ExpectationSuite("pairs", expectations=[_expectation(check, table) for check in suite])
    )
    validation = context.validation_definitions.add(
        gx.ValidationDefinition(name="gate", data=batch, suite=expectations)
    )
    checkpoint = gx.Checkpoint(
        name="validate",
        validation_definitions=[validation],
        result_format={
            "result_format": "COMPLETE",
            "unexpected_index_column_names": ["pair", "row"],
        },
    )
    outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": table})
    (result,) = outcome.run_results.values()
    by_name = {one.expectation_config.meta["check"]: one for one in result.results}
    return [_details(check, by_name[check.name]) for check in suite]


def _details(check: DataCheck, result: Any) -> dict[str, Any]:
    if result.exception_info and result.exception_info.get("raised_exception"):
        message = result.exception_info.get("exception_message")
        raise AssertionError(f"check {check.name} could not run: {message}")
    return {} if result.success else dict(result.result)


def _expectation(check: DataCheck, table: pd.DataFrame) -> Any:
    common: dict[str, Any] = {
        "column": check.column,
        "severity": check.severity,
        "meta": {"check": check.name},
    }
    if check.allowed is not None:
        return ExpectColumnValuesToBeInSet(value_set=sorted(check.allowed), **common)
    if check.minimum is not None or check.maximum is not None:
        # the engine's share is relative to the rows with a value: those that could be judged
        judged = int(table[check.column].notna().sum())
        good = judged - check.tolerated(judged)
        return ExpectColumnValuesToBeBetween(
            min_value=check.minimum,
            max_value=check.maximum,
            mostly=good / judged if judged else 1.0,
            **common,
        )
    return ExpectColumnValuesToBeNull(**common)


def _context() -> Any:
    """A Great Expectations context that stores nothing and sends no usage reports.

    Its own pages are not written: they take styles and scripts from the Internet.
    """
    config = DataContextConfig(
        store_backend_defaults=InMemoryStoreBackendDefaults(),
        data_docs_sites={},
        analytics_enabled=False,
        progress_bars=ProgressBarsConfig(globally=False),
    )
    return gx.get_context(mode="ephemeral", project_config=config)
