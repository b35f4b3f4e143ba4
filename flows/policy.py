"""What all flows share: which failures are worth a retry, and how errors end a flow."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from prefect import Task
from prefect.client.schemas.objects import State, TaskRun

from mirnet.errors import MirnetError, ServiceError


def is_transient(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Retry what a service did (connection, throttling), never what the data or the code did."""
    error = state.data
    return isinstance(error, ServiceError) and error.transient


def exit_code_of(run: Callable[[], object]) -> int:
    """Run a flow from the command line: one line and the exit code for expected errors."""
    try:
        run()
    except MirnetError as error:
        print(f"mirnet: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("mirnet: interrupted", file=sys.stderr)
        return 130
    return 0
