"""The data stages: version and validation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mirnet.errors import DataError, GateRefused
from mirnet.results import DataVersion, ValidationResult
from mirnet.stages.run import RunConfig, run_tags


def check_version(data: Path, *, allow_modified: bool = False) -> DataVersion:
    """The version of the data.

    Raises:
        DataError: no such folder, or files differ from their pin and ``allow_modified`` is off.
    """
    from mirnet.data.versioning import data_version

    version = data_version(data)
    if version.status == "modified" and not allow_modified:
        raise DataError(
            f"{data} differs from its pin{_where(version)}: dvc checkout brings the pinned files "
            "back, dvc add pins these, --allow-modified goes on"
        )
    return version


def _where(version: DataVersion) -> str:
    """Names of the files that differ, if DVC's cache has the pinned listing; else sizes."""
    if not version.changed:
        return f" (it holds {version.num_files:,} files of {version.size:,} bytes)"
    named = ", ".join(version.changed[:5]) + (", ..." if len(version.changed) > 5 else "")
    return f" in {len(version.changed)} files ({named})"


def validate(
    data: Path,
    run: RunConfig,
    *,
    version: DataVersion | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ValidationResult:
    """Validate the data set. Bad pairs are findings, not exceptions.

    Raises:
        DataError: no such folder, or no LoL layout in it.
    """
    from mirnet.data.validation import validate_data

    result = validate_data(
        data,
        run.params.validation,
        reports_dir=run.settings.reports_dir / "validation",
        settings=run.settings,
        version=version,
        progress=progress,
    )
    result.save(run.report("validate"))
    return result


def publish_validation(run: RunConfig, result: ValidationResult) -> str:
    """Log the findings and their page to MLflow, also for blocked data.

    One MLflow run per data version and set of thresholds; a repeated validation resumes it.

    Returns:
        Address of the page of the findings; without an MLflow server, the run.

    Raises:
        ServiceError: MLflow cannot be reached.
    """
    from mirnet.tracking import track

    version = result.version
    thresholds = run.params.validation.model_dump_json()
    key = hashlib.sha256(f"{version.digest} {thresholds}".encode()).hexdigest()[:16]
    tags = run_tags(run, version) | {"mirnet.verdict": "passed" if result.passed else "blocked"}
    with track(
        run.settings,
        purpose="validate",
        name=f"{'passed' if result.passed else 'blocked'} {version.digest[:8]}",
        key=key,
        tags=tags,
    ) as tracked:
        tracked.log_params(run.params)
        tracked.log_data(version, context="validation")
        counts = Counter(finding.severity for finding in result.findings)
        pairs = {f"pairs/{split}": float(count) for split, count in result.num_pairs.items()}
        findings = {f"findings/{kind}": float(counts[kind]) for kind in ("critical", "warning")}
        tracked.log_metrics(pairs | findings, data=version)
        tracked.log_text(result.model_dump_json(indent=2), "validation.json")
        if result.docs_path:
            tracked.log_file(Path(result.docs_path).parent, "data_docs")
        if result.manifest_path:
            tracked.log_file(Path(result.manifest_path))
    page = tracked.artifact_page("data_docs/index.html") if result.docs_path else None
    return page or tracked.page


def blocking_message(result: ValidationResult) -> str:
    """The critical findings in one line."""
    critical = [finding for finding in result.findings if finding.severity == "critical"]
    named = "; ".join(finding.message for finding in critical[:5])
    more = f"; and {len(critical) - 5} more" if len(critical) > 5 else ""
    return f"{result.version.path}: {named}{more}"


def passed_validation(data: Path, run: RunConfig, version: DataVersion) -> ValidationResult:
    """The validation in the reports folder if it is of this data version, else a new one.

    Raises:
        GateRefused: the data do not pass.
    """
    path = run.report("validate")
    if path.is_file():
        existing = ValidationResult.load(path)
        if existing.passed and existing.version.digest == version.digest:
            return existing.model_copy(update={"splits": split_roles(data, run)})
    result = validate(data, run, version=version)
    if not result.passed:
        raise GateRefused(blocking_message(result))
    return result


def split_roles(data: Path, run: RunConfig) -> dict[str, tuple[str, ...]]:
    """Pair ids by role, train, val and eval, from the cached manifest."""
    from mirnet.data.manifest import build_manifest
    from mirnet.data.splits import split_pairs

    manifest = build_manifest(data, cache_dir=run.settings.manifest_cache)
    return split_pairs(manifest, run.params.validation)
