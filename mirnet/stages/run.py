"""The configuration of a run, passed to every stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mirnet.config import Settings, load_settings
from mirnet.params import Params, load_params
from mirnet.results import DataVersion


@dataclass(frozen=True)
class RunConfig:
    """Params, settings, and the id of the flow run, if any."""

    params: Params
    settings: Settings
    flow_run_id: str | None = None

    def report(self, stage: str) -> Path:
        """Path of the JSON result of a stage."""
        return self.settings.reports_dir / f"{stage}.json"


def load_run_config(
    params: str | Path | None = None,
    overrides: list[str] | None = None,
    *,
    flow_run_id: str | None = None,
) -> RunConfig:
    """Load params and settings, once, at the entry point.

    Raises:
        UsageError: unknown preset, file, parameter or variable, or a value out of bounds.
    """
    loaded = load_params(params, overrides=tuple(overrides or ()))
    return RunConfig(params=loaded, settings=load_settings(), flow_run_id=flow_run_id)


def check_services(run: RunConfig) -> None:
    """Check that MLflow can be used and a model be promoted, before any compute is spent.

    Raises:
        ServiceError: no answer, or access refused; names the address.
        UsageError: there is no key to sign with.
        UntrustedModel: the champion, which is compared with, is not to be trusted.
    """
    from mirnet.tracking import check_tracking
    from mirnet.tracking.registry import check, list_versions
    from mirnet.tracking.trust import signing_key

    check_tracking(run.settings)
    signing_key(run.settings)
    name = run.params.promote.name
    if any("champion" in version.aliases for version in list_versions(name, run.settings)):
        check(f"models:/{name}@champion", run.settings)


def run_tags(run: RunConfig, version: DataVersion) -> dict[str, str | None]:
    """Provenance tags of every MLflow run."""
    return {
        "mirnet.preset": run.params.preset,
        "mirnet.data_digest": version.digest,
        "mirnet.data_status": version.status,
        "mirnet.git_commit": version.git_commit,
        "mirnet.flow_run": run.flow_run_id,
    }


def training_tags(run: RunConfig) -> dict[str, str | None]:
    """What a repetition of a training is compared by, besides :func:`run_tags`.

    The processor is that of this machine; none if a cluster trains.
    """
    from mirnet.hardware import describe_processor
    from mirnet.signing.files import digest_of
    from mirnet.tracking.code import git_changes
    from mirnet.training import IN_PROCESS

    settings, weights = run.settings, run.params.train.perceptual_weights
    address = settings.ray_address or ""
    remote = address.startswith(("http://", "https://"))
    return {
        "mirnet.git_changes": git_changes(Path.cwd()),
        "mirnet.hardware": None if remote else describe_processor(),
        "mirnet.workers": "1" if address == IN_PROCESS else settings.num_workers,
        "mirnet.perceptual_weights": (
            digest_of(Path(weights)) if weights and Path(weights).is_file() else None
        ),
    }
