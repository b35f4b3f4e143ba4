"""A running stack as a client sees it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirnet.data.versioning import git_commit
from mirnet.stack import control
from mirnet.stack.plan import Secrets, StackPaths, StackPlan
from mirnet.stack.probes import basic, request
from mirnet.stack.processes import kill_session
from mirnet.stack.services import client_environment

PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Stack:
    """A running stack, as a client sees it."""

    home: StackPaths
    plan: StackPlan
    secrets: Secrets
    own: bool

    @property
    def env(self) -> dict[str, str]:
        return client_environment(self.home, self.plan, self.secrets)

    def prefect(self, path: str, body: object) -> Any:
        status, content = request(
            f"{self.plan.url('prefect')}/api/{path}",
            headers=basic(self.secrets.prefect_auth),
            body=body,
            timeout_s=60,
        )
        assert status in (200, 201), (path, status, content[:300])
        return json.loads(content)

    def mlflow(self, path: str, body: object | None = None) -> Any:
        status, content = request(
            f"{self.plan.url('mlflow')}/api/2.0/mlflow/{path}",
            headers=basic(f"pipeline:{self.secrets.mlflow_pipeline}"),
            body=body,
            timeout_s=60,
        )
        assert status == 200, (path, status, content[:300])
        return json.loads(content)

    def run(self, *module: str) -> subprocess.CompletedProcess[str]:
        """``python -m`` where flows run."""
        with tempfile.TemporaryDirectory() as home:
            return subprocess.run(
                [sys.executable, "-m", *module],
                cwd=PROJECT,
                env=os.environ | self.env | {"PREFECT_HOME": home},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )

    @property
    def code(self) -> str | None:
        """The commit that flows run."""
        return git_commit(PROJECT)

    def data_seen_by_flows(self, data: Path) -> str:
        return str(data)

    @property
    def losable(self) -> tuple[str, ...]:
        """What a training outlives."""
        return ("prefect-worker", "ray-node-1", "mlflow", "prefect-server")

    def identities(self) -> dict[str, object]:
        """What changes for a service when it is started again."""
        return {name: s.pid for name, s in control.status(self.home).services.items()}

    def up_again(self) -> None:
        control.up(self.home, project=PROJECT, timeout_s=60, progress=lambda _: None)

    def lose(self, service: str) -> None:
        """A host goes with all its processes, a server dies alone; returns when it is back."""
        before = self.pid(service)
        if service.startswith("ray-node"):
            kill_session(before)
        else:
            os.kill(before, signal.SIGKILL)
        self.wait_restarted(service, before)

    def pid(self, service: str) -> int:
        pid = control.status(self.home).services[service].pid
        assert pid is not None
        return pid

    def trigger(self, flow: str, parameters: dict[str, object]) -> str:
        found = self.prefect("deployments/filter", {"flows": {"name": {"any_": [flow]}}})
        assert len(found) == 1
        run = self.prefect(
            f"deployments/{found[0]['id']}/create_flow_run", {"parameters": parameters}
        )
        return str(run["id"])

    def state(self, run_id: str) -> dict[str, Any]:
        found = self.prefect("flow_runs/filter", {"flow_runs": {"id": {"any_": [run_id]}}})
        return dict(found[0]["state"])

    def wait_ended(self, run_id: str, *, timeout_s: float) -> dict[str, Any]:
        ends = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        wait_for(lambda: self.state(run_id)["type"] in ends, timeout_s=timeout_s)
        return self.state(run_id)

    def wait_restarted(self, service: str, before: int, *, timeout_s: float = 240) -> None:
        def again() -> bool:
            now = control.status(self.home).services[service]
            return now.phase == "healthy" and now.pid not in (None, before)

        wait_for(again, timeout_s=timeout_s)


def wait_for(condition: Callable[[], bool], *, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(2)
