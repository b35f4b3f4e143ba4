"""Serve the deployments of ``prefect.yaml`` from this process: a laptop without a work pool.

``python -m flows.serve`` needs a Prefect server (PREFECT_API_URL) and runs until Ctrl-C.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import yaml
from prefect import Flow, serve
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.deployments.runner import RunnerDeployment
from prefect.schedules import Cron, Interval, Schedule

from flows.deploying import prepare
from flows.policy import exit_code_of
from mirnet.errors import UsageError

NAME = "laptop"


def load_deployments(path: Path) -> list[RunnerDeployment]:
    """The deployments of a prefect file, under the name ``laptop``.

    Raises:
        UsageError: the file is missing; says where to run.
    """
    if not path.is_file():
        raise UsageError(f"{path} is missing: run in the project's folder")
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["deployments"]
    return [_deployment(entry, _commit(path.parent)) for entry in entries]


def _deployment(entry: dict[str, Any], commit: str) -> RunnerDeployment:
    flow = load_flow(entry["entrypoint"])
    limit = entry["concurrency_limit"]
    return cast(
        RunnerDeployment,
        flow.to_deployment(
            NAME,
            version=commit,
            tags=[tag.replace("{{ commit.stdout }}", commit) for tag in entry["tags"]],
            description=entry["description"],
            parameters=entry["parameters"],
            schedules=[_schedule(schedule) for schedule in entry["schedules"]],
            concurrency_limit=ConcurrencyLimitConfig(
                limit=limit["limit"],
                collision_strategy=ConcurrencyLimitStrategy(limit["collision_strategy"]),
            ),
        ),
    )


def load_flow(entrypoint: str) -> Flow[..., Any]:
    """``flows/retrain.py:retrain`` -> the flow."""
    path, _, name = entrypoint.partition(":")
    module = import_module(path.removesuffix(".py").replace("/", "."))
    return cast(Flow[..., Any], getattr(module, name))


def _schedule(entry: dict[str, Any]) -> Schedule:
    if "cron" in entry:
        return Cron(
            entry["cron"], timezone=entry["timezone"], day_or=entry["day_or"], slug=entry["slug"]
        )
    return Interval(
        timedelta(seconds=entry["interval"]), timezone=entry["timezone"], slug=entry["slug"]
    )


def _commit(folder: Path) -> str:
    """The served commit; ``unknown`` outside of a repository."""
    found = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"


def main() -> None:
    deployments = load_deployments(Path("prefect.yaml"))
    prepare()
    serve(*deployments)


if __name__ == "__main__":
    sys.exit(exit_code_of(main))
