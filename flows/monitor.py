"""The monitoring flow: machine, services, age and data of the champion.

Writes a table artifact and a textfile for Prometheus, and emits the events on which automations
act (flows/automations.py). ``python -m flows.monitor`` runs it here; a deployment every half hour.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from flows.events import announce_data_change, announce_failure
from flows.policy import exit_code_of, is_transient, start_logging
from flows.prometheus import Champion, of_look, of_reports
from flows.run_names import by_date
from flows.safety import Address, redacted_errors, redacting, without_secrets
from flows.time_limits import flow_limit, limited
from mirnet.config import load_settings, refuse_credentials
from mirnet.doctor import DoctorCheck, examine
from mirnet.errors import DataError, ServiceError, UsageError
from mirnet.params import load_params
from mirnet.results import Result
from mirnet.telemetry import write_textfile

TEXTFILE = "mirnet.prom"


class Watch(Result):
    """Results of one monitoring run."""

    checks: tuple[DoctorCheck, ...]
    champion: Champion | None
    data_digest: str | None
    textfile: str

    @property
    def failed(self) -> tuple[DoctorCheck, ...]:
        return tuple(check for check in self.checks if check.outcome == "failed")


@task(name="examine")
@redacting
@limited("examine", "check")
def examine_machine() -> tuple[DoctorCheck, ...]:
    """Every check of ``mirnet doctor``; the failed ones become events."""
    checks = tuple(examine(load_settings()))
    for check in checks:
        if check.outcome == "failed":
            get_run_logger().error("%s: %s. %s", check.name, check.found, check.advice)
            announce_failure(check=check.name, found=check.found, advice=check.advice)
    return checks


@task(
    name="look at the champion", retries=2, retry_delay_seconds=10, retry_condition_fn=is_transient
)
@redacting
@limited("look at the champion", "check")
def find_champion(name: str) -> Champion | None:
    """Version, age and data of the champion; none before the first promotion."""
    from mirnet.tracking.registry import DATA_TAG, get_version

    try:
        found = get_version(f"models:/{name}@champion", load_settings())
    except UsageError:
        return None
    return Champion(
        version=found.version,
        age_s=max(0.0, time.time() - found.created_s),
        data_digest=found.tags.get(DATA_TAG),
    )


@task(name="look at the data")
@redacting
@limited("look at the data", "stage")
def find_digest(data: str) -> str | None:
    """DVC's digest of the data folder; none if this machine has no data."""
    from mirnet.data.versioning import data_version

    try:
        return data_version(Path(data)).digest
    except DataError:
        get_run_logger().info("%s: no data here", data)
        return None


@without_secrets
@flow(name="monitor", description=__doc__, flow_run_name=by_date)
def monitor(data: Address = "data", params: str = "cpu") -> Watch:
    """Run all checks once.

    Args:
        data: Folder whose version is compared with the champion's.
        params: Preset name or path of a YAML file; says the registered model's name.
    """
    with redacted_errors():
        refuse_credentials(data)
        with flow_limit("monitor", "check", "check", "stage"):
            return _watch(data, params)


def _watch(data: str, params: str) -> Watch:
    start_logging(flow_run.get_id())
    checks = examine_machine()
    champion = None
    if all(check.outcome != "failed" for check in checks if check.name == "mlflow"):
        try:
            champion = find_champion(load_params(params).promote.name)
        except ServiceError as error:
            announce_failure(check="registry", found=str(error), advice="see runbooks")
    digest = find_digest(data)
    if champion and digest and champion.data_digest and digest != champion.data_digest:
        announce_data_change(path=data, digest=digest, champion_digest=champion.data_digest)
    create_table_artifact(
        key="watch", table=[check.model_dump() for check in checks], description="mirnet doctor"
    )
    reports = load_settings().reports_dir
    path = write_textfile(reports / TEXTFILE, of_look(checks, champion) + of_reports(reports))
    return Watch(checks=checks, champion=champion, data_digest=digest, textfile=str(path))


def _main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m flows.monitor", description=__doc__)
    parser.add_argument("--data", default="data")
    parser.add_argument("--params", default="cpu", help="preset or YAML file")
    options = parser.parse_args(arguments)

    def run() -> None:
        refuse_credentials(options.data)
        monitor(options.data, options.params)

    return exit_code_of(run)


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
