"""Folder, ports and secrets of a stack; written once, then kept."""

from __future__ import annotations

import secrets
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from mirnet.atomic import write_atomically
from mirnet.errors import UsageError
from mirnet.signing.keys import ensure_keys
from mirnet.storage import s3server

# Standard ports; another free port is used if one of them is taken.
WELL_KNOWN = {"prefect": 4200, "mlflow": 5000, "s3": 8333, "ray-dashboard": 8265}
_INTERNAL = (
    "postgres",
    *s3server.PORTS[1:],  # the first is well known
    "ray-gcs",
    "ray-client",
    "ray-agent-head",
    "ray-agent-1",
    "ray-agent-2",
)
# Below the ephemeral port range of the kernel, so that nothing takes one by chance.
_FIRST, _LAST = 20_000, 32_000

BUCKETS = ("mlflow", "training", "photos", "enhanced")


@dataclass(frozen=True)
class StackPaths:
    root: Path

    @property
    def plan(self) -> Path:
        """Ports and choices."""
        return self.root / "plan.json"

    @property
    def secrets(self) -> Path:
        """All secrets for use from outside, mode 0600."""
        return self.root / "secrets.json"

    @property
    def state(self) -> Path:
        """The last state written by the supervisor."""
        return self.root / "state.json"

    @property
    def lock(self) -> Path:
        """Held by ``up`` and ``down``."""
        return self.root / "lock"

    @property
    def running(self) -> Path:
        """Held by the supervisor while it runs."""
        return self.root / "running"

    @property
    def restoring(self) -> Path:
        """There while a restore is not finished."""
        return self.root / "restoring"

    @property
    def logs(self) -> Path:
        """One file per service."""
        return self.root / "logs"

    @property
    def keys(self) -> Path:
        """The key pair that signs models."""
        return self.folder("keys")

    def folder(self, name: str) -> Path:
        """The data of one service."""
        return self.root / name


class StackPlan(BaseModel):
    """Ports and choices that outlive a restart, so that addresses stay."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stack_id: str
    project: Path = Field(description="folder of the flows and params")
    database: Literal["postgres", "sqlite"]
    ports: dict[str, int]
    run_dir: Path = Field(description="sockets and session files of Ray, removed by down")
    num_nodes: int = Field(2, ge=1, le=2, description="Ray nodes beside the head")

    def url(self, service: str) -> str:
        """``http://127.0.0.1:PORT`` of a service."""
        return f"http://127.0.0.1:{self.ports[service]}"


class Secrets(BaseModel):
    """Generated once, kept in one file with mode 0600."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    postgres: str
    postgres_prefect: str
    postgres_mlflow: str
    prefect: str
    mlflow_admin: str
    mlflow_pipeline: str
    mlflow_session: str
    ray: str
    s3_admin_key: str
    s3_admin_secret: str
    s3_mlflow_key: str
    s3_mlflow_secret: str
    s3_pipeline_key: str
    s3_pipeline_secret: str
    s3_internal: str

    def __repr_args__(self) -> list[tuple[str | None, object]]:
        """Empty, so that secrets do not end up in logs or in the output of failed tests."""
        return []

    @classmethod
    def generate(cls) -> Self:
        """32 random bytes each, in characters that need no quoting anywhere."""
        return cls(**{name: secrets.token_hex(32) for name in cls.model_fields})

    @property
    def prefect_auth(self) -> str:
        """``user:password`` of the Prefect API."""
        return f"admin:{self.prefect}"


def load_plan(home: StackPaths) -> tuple[StackPlan, Secrets]:
    """Read what :func:`make_plan` wrote.

    Raises:
        UsageError: there is no stack here, or its secrets are readable for others; names the file.
    """
    if not home.plan.is_file() or not home.secrets.is_file():
        raise UsageError(f"no stack in {home.root}: run `mirnet stack up` first")
    mode = home.secrets.stat().st_mode & 0o777
    if mode & 0o077:
        raise UsageError(f"{home.secrets} has mode {mode:o}; set it: chmod 600 {home.secrets}")
    try:
        plan = StackPlan.model_validate_json(home.plan.read_text(encoding="utf-8"))
        existing = Secrets.model_validate_json(home.secrets.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(
            f"{home.root}: {home.plan.name} or {home.secrets.name} is not ours; "
            "move the folder away and run `mirnet stack up` again"
        ) from error
    return plan, existing


def make_plan(
    home: StackPaths, *, project: Path, database: Literal["postgres", "sqlite"]
) -> StackPlan:
    """Keep existing ports and secrets; create missing ones.

    A port that is taken by another process in the meantime is replaced.
    """
    home.root.mkdir(parents=True, exist_ok=True)
    home.root.chmod(0o711)
    home.logs.mkdir(exist_ok=True, mode=0o700)
    if not home.secrets.is_file():
        write_private(home.secrets, Secrets.generate().model_dump_json(indent=2))
    ensure_keys(home.keys)
    before = load_plan(home)[0] if home.plan.is_file() else None
    run_dir = before.run_dir if before else None
    if run_dir is None or not run_dir.is_dir():
        run_dir = _short_folder()
    plan = StackPlan(
        stack_id=before.stack_id if before else secrets.token_hex(8),
        project=project.resolve(),
        database=before.database if before else database,
        ports=_choose_ports(before.ports if before else {}),
        run_dir=run_dir,
    )
    write_private(home.plan, plan.model_dump_json(indent=2))
    return plan


def write_private(path: Path, text: str) -> None:
    """Write a line atomically, readable by the owner only."""
    write_atomically(path, text + "\n", mode=0o600)


def _short_folder() -> Path:
    # a unix socket path holds 107 characters and Ray adds about 70 to its folder
    parent = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="mst", dir=parent if len(parent) <= 24 else "/tmp"))


def _choose_ports(before: dict[str, int]) -> dict[str, int]:
    chosen: dict[str, int] = {}
    for name in (*WELL_KNOWN, *_INTERNAL):
        wish = before.get(name) or WELL_KNOWN.get(name)
        chosen[name] = wish if wish and is_free(wish) else _free_port(set(chosen.values()))
    return chosen


def _free_port(taken: set[int]) -> int:
    for _ in range(500):
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port not in taken and is_free(port):
            return port
    raise UsageError(f"no free port between {_FIRST} and {_LAST}")


def is_free(port: int) -> bool:
    """Whether no process listens on the port, on any address."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
