"""Shared policy of all flows: retries and error handling."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from prefect import Task, task
from prefect.cache_policies import NO_CACHE
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.runtime import flow_run
from prefect.settings import get_current_settings

from flows.expected_errors import leave_to_stderr, log_once
from flows.safety import redacting
from flows.time_limits import Limit, limited
from mirnet import stages
from mirnet.config import load_settings
from mirnet.errors import MirnetError, ServiceError
from mirnet.full_disk import full_disk_explained, require_room
from mirnet.logs import JsonLines, bind
from mirnet.stages import RunConfig

log_once()
_PREFECT_MIB = 32
"""For the database of a server of its own, with room for a run."""

P = ParamSpec("P")
R = TypeVar("R")


def io_task(name: str, limit: Limit) -> Callable[[Callable[P, R]], Task[P, R]]:
    """A task that is retried after a failure of a service. Never cached: stores change.

    Args:
        limit: of the duration of one attempt.
    """
    decorate = task(
        name=name,
        retries=3,
        retry_delay_seconds=[2, 10, 30],
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,
    )
    return lambda function: decorate(redacting(limited(name, limit)(function)))


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry failures of a service (connection, throttling), never those of data or code."""
    error = state.data
    return isinstance(error, ServiceError) and error.transient


def load_run_config(params: str, overrides: list[str] | None) -> RunConfig:
    """The run configuration of the calling flow, whose id is added to all later log lines.

    Raises:
        UsageError: see :func:`mirnet.stages.load_run_config`.
    """
    flow_run_id = flow_run.get_id()
    start_logging(flow_run_id)
    return stages.load_run_config(params, overrides, flow_run_id=flow_run_id)


def start_logging(flow_run_id: str | None) -> None:
    """Show the library's log lines in Prefect and on the console; JSON if configured.

    Raises:
        UsageError: a ``MIRNET_*`` variable has a bad value.
    """
    bind(flow_run_id=flow_run_id)
    logging.getLogger("mirnet").setLevel(logging.getLogger("prefect").level)
    if load_settings().log_format == "json":
        for name in ("", "prefect"):
            for handler in logging.getLogger(name).handlers:
                if isinstance(handler, PrefectConsoleHandler):
                    handler.setFormatter(JsonLines())


def check_prefect() -> None:
    """Check that a configured Prefect server answers; without one Prefect starts its own.

    Raises:
        ServiceError: the server does not answer; names its address.
        DiskFull: a server of its own would have no room for its database.
    """
    settings = get_current_settings()
    url = settings.api.url
    if not url:
        require_room(settings.home, _PREFECT_MIB)
        return
    with get_client(sync_client=True) as client:
        problem = client.api_healthcheck()
    if problem is not None:
        raise ServiceError(
            f"Prefect at {url} does not answer ({problem}): "
            "start it or unset PREFECT_API_URL to run without a server"
        )


def exit_code_of(run: Callable[[], object]) -> int:
    """Run a flow from the command line: one line and the exit code for expected errors."""
    leave_to_stderr()
    try:
        with full_disk_explained():
            check_prefect()
            run()
    except MirnetError as error:
        print(f"mirnet: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mirnet: interrupted", file=sys.stderr)
        return 130
    return 0
