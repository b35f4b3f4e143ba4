"""Settings: addresses and resources of a run, from ``MIRNET_*`` variables; environments of engines.

**Params change the numbers, settings change the place.* Both are loaded once, at the entry point,
and passed down. The only module that touches ``os.environ``.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mirnet.errors import UsageError, without_kind
from mirnet.redaction import has_secret, hide

LONGEST_LEASE_S = 3600.0
CREDENTIALS_BELONG = (
    "credentials belong in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or an AWS profile, for DVC "
    "in .dvc/config.local"
)


class Settings(BaseSettings):
    """Settings from ``MIRNET_*`` variables. The defaults need only this machine.

    Credentials of S3 come from the standard AWS variables or profile and are not stored here.
    """

    model_config = SettingsConfigDict(
        env_prefix="MIRNET_", frozen=True, extra="ignore", hide_input_in_errors=True
    )

    workspace: Path = Field(
        Path(".mirnet"), description="folder of local databases, checkpoints, caches"
    )
    stack_home: Path = Field(
        Path(".mirnet/stack"), description="folder of the stack on this machine (`mirnet stack`)"
    )
    reports_dir: Path = Field(
        Path("reports"), description="folder of JSON results, tables, reports"
    )
    tracking_uri: str | None = Field(
        None, description="MLflow tracking and registry; none: SQLite in the workspace"
    )
    artifact_uri: str | None = Field(
        None, description="root of MLflow artifacts of new experiments; none: the workspace"
    )
    ray_address: str | None = Field(
        None,
        description="http://head:8265 of a Ray cluster; none: a local Ray instance; "
        "'in-process': no Ray",
    )
    num_workers: str = Field("2", pattern=r"^\d+(-\d+)?$", description="training workers: 2 or 1-8")
    max_restarts: int = Field(
        3, ge=0, description="maximum number of restarts of failed workers per training run"
    )
    storage_uri: str | None = Field(
        None, description="store of checkpoints: a path or s3://bucket/prefix that all nodes share"
    )
    pack_above_gib: float = Field(
        2.0,
        ge=0,
        description="decoded training pairs above this size are mapped from disk and sent to nodes "
        "in shards; below, they are kept in memory and sent through Ray's object store",
    )
    s3_endpoint_url: str | None = Field(None, description="address of an S3 server other than AWS")
    s3_timeout_s: float = Field(20.0, gt=0, description="seconds without a byte before a retry")
    batch_engine: Literal["local", "ray"] = Field(
        "local", description="enhance in this process, or on Ray Data with one actor per GPU"
    )
    io_threads: int = Field(4, ge=1, le=256, description="threads for transfers and codecs")
    lease_s: float = Field(
        60.0,
        ge=0.1,
        le=LONGEST_LEASE_S,
        description="seconds without renewal after which the lease of a job expires",
    )
    stuck_s: float = Field(
        3600.0,
        gt=0,
        description="seconds without progress (a listed key, an image, a tile of a large one; "
        "on Ray 16 images) after which a job gives up its lease and ends",
    )
    image_stuck_s: float = Field(
        600.0,
        gt=0,
        description="seconds without progress (decoding, a tile) after which a process that works "
        "on images that others can take over is ended: the child for suspects, a Ray worker; at "
        "most half of MIRNET_STUCK_S",
    )
    child_memory_gib: float | None = Field(
        None,
        gt=0,
        description="resident memory of the child process for suspects; none: 70 % of what is free "
        "beside it",
    )
    stop_s: float = Field(
        25.0,
        gt=0,
        description="seconds from SIGTERM until a process that reaches no safe point is ended",
    )
    check_limit_s: float = Field(
        900.0, gt=0, description="seconds for a check of services in a flow, each attempt"
    )
    stage_limit_s: float = Field(
        21_600.0,
        gt=0,
        description="seconds for every task of a flow without a limit of its own, each attempt",
    )
    train_limit_s: float = Field(
        604_800.0, gt=0, description="seconds for the training of a flow; `resume` goes on with it"
    )
    enhance_limit_s: float = Field(
        86_400.0,
        gt=0,
        description="seconds for the batch of a flow; the next run goes on with the rest",
    )
    turn_limit_s: float = Field(
        43_200.0,
        gt=0,
        description="seconds that a flow waits for its turn to train or enhance "
        "(Prefect's concurrency limit `mirnet-compute`)",
    )
    flush_s: float = Field(10.0, ge=0.01, description="seconds between parts of a manifest")
    log_format: Literal["text", "json"] = Field(
        "text", description="log lines as text, or one JSON object per line with the run's ids"
    )
    cpu_hour_price: float = Field(0.0, ge=0, description="price of a CPU core per hour")
    gpu_hour_price: float = Field(0.0, ge=0, description="price of a GPU per hour")
    currency: str = Field(
        "EUR", pattern=r"^[A-Z]{3}$", description="currency of the prices, ISO 4217"
    )
    cpu_watts: float = Field(
        10.0, ge=0, description="power of a busy CPU core, for the energy estimate"
    )
    gpu_watts: float = Field(
        350.0, ge=0, description="power of a busy GPU, for the energy estimate"
    )
    cache_dir: Path | None = Field(
        None, description="folder of compiled kernels, manifests; none: the workspace"
    )
    memory_limit_gib: float | None = Field(
        None,
        ge=0.25,
        description="memory limit of one enhancement; none: half of the free memory, up to 3",
    )
    compile: bool = Field(
        True, description="compile the network for image sizes that occur repeatedly"
    )
    signing_key: Path | None = Field(
        None,
        description="private key that signs model versions and moves of aliases (PEM, mode 0600); "
        "none: keys/model-signing.key in the workspace",
    )
    trusted_keys: Path | None = Field(
        None,
        description="public keys whose signatures are trusted (PEM, one or more); "
        "none: keys/model-signing.pub in the workspace",
    )
    allow_unsigned: bool = Field(
        False,
        description="use model versions and moves of aliases without a signature; a wrong "
        "signature is refused in any case",
    )

    @field_validator("num_workers")
    @classmethod
    def _workers_in_order(cls, value: str) -> str:
        low, _, high = value.partition("-")
        if high and int(high) < int(low):
            raise ValueError("the second number is the larger, as in 1-8")
        return value

    @field_validator("s3_endpoint_url", "artifact_uri", "storage_uri")
    @classmethod
    def _without_credentials(cls, value: str | None) -> str | None:
        # MLflow stores the root of artifacts, and Ray shows the variables of a job
        if value and has_secret(value):
            raise ValueError(f"an address with credentials; {CREDENTIALS_BELONG}")
        return value

    @property
    def image_limit_s(self) -> float:
        """``image_stuck_s``, below the time after which the job itself counts as stuck."""
        return min(self.image_stuck_s, self.stuck_s / 2)

    @property
    def worker_range(self) -> tuple[int, int]:
        """Minimum and maximum number of training workers."""
        low, _, high = self.num_workers.partition("-")
        return int(low), int(high or low)

    @property
    def mlflow_uri(self) -> str:
        """The tracking URI in force, with an absolute path; SQLite in the workspace unless set.

        Servers and workers run in other folders.
        """
        if self.tracking_uri:
            return _with_absolute_path(self.tracking_uri)
        return f"sqlite:///{(self.workspace / 'mlflow.db').resolve()}"

    @property
    def keys_dir(self) -> Path:
        """Where the keys are unless other files are set."""
        return self.workspace / "keys"

    def cache(self, name: str) -> Path:
        """Folder of the cache of this name, such as ``kernels``."""
        return (self.cache_dir or self.workspace / "cache").resolve() / name

    @property
    def manifest_cache(self) -> Path:
        """Folder of cached measurements of data sets."""
        return (self.cache_dir or self.workspace) / "manifest"

    @property
    def checkpoints(self) -> str:
        """Path or URI of the checkpoints."""
        return self.storage_uri or str((self.workspace / "training").resolve())


def _with_absolute_path(uri: str) -> str:
    """``sqlite:///mine.db``, ``file:runs`` and ``./runs``; others stay as they are."""
    local = re.match(r"(sqlite(?:\+\w+)?:///|file:(?://(?=\.))?|(?=\.))(?!/|:memory:|$)", uri)
    if local is None:
        return uri
    path = Path(uri[local.end() :]).absolute()
    return f"{local.group()}{path}"


def set_kernel_cache(directory: Path, *, default: str) -> None:
    """Share the code of ``torch.compile`` with other processes; a variable that is set wins.

    Args:
        default: of torch, which sets the variable itself when it is imported.
    """
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default) == default:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(directory.resolve())


def load_settings(**overrides: Any) -> Settings:
    """Read ``MIRNET_*``.

    Raises:
        UsageError: a variable has a bad value; names the variable and not the value, which may
            be a secret.
    """
    hide(_secrets())
    try:
        return Settings(**overrides)
    except ValidationError as error:
        problem = error.errors()[0]
        name = "MIRNET_" + ".".join(str(part) for part in problem["loc"]).upper()
        raise UsageError(f"{name}: {without_kind(problem['msg'])}") from error


# No engine sends usage reports, and none prompts on a terminal.
_ENGINE_DEFAULTS = {
    "DO_NOT_TRACK": "true",  # Prefect takes 1 as well, MLflow does not
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # flows/automations.py takes a run that is silent for 90 s as dead; Prefect's own is 180 s
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    # what the library logs stands beside the flow run in Prefect
    "PREFECT_LOGGING_EXTRA_LOGGERS": "mirnet",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # 20 s is too short for a first start on a busy machine
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def engine_defaults() -> dict[str, str]:
    """Variables of the engines, for a shell that calls their commands directly."""
    return dict(_ENGINE_DEFAULTS)


def apply_engine_defaults(**more: str) -> None:
    """Set variables that the engines read, unless set already. For entry points only."""
    for name, value in (_ENGINE_DEFAULTS | more).items():
        os.environ.setdefault(name, value)


@contextmanager
def environment(**variables: str | None) -> Iterator[None]:
    """Variables within a block (none: unset), restored afterwards. For entry points only."""
    before = {name: os.environ.get(name) for name in variables}
    _set_variables(variables)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def refuse_credentials(*addresses: str | None) -> None:
    """Addresses are written to manifests, tags and parameters of runs: none may carry a secret.

    Raises:
        UsageError: one does; says where credentials belong.
    """
    for address in addresses:
        if address and has_secret(address):
            raise UsageError(f"{address}: an address with credentials; {CREDENTIALS_BELONG}")


_ENGINE_PREFIXES = ("AWS_", "MIRNET_", "MLFLOW_", "PREFECT_", "RAY_", "WEED_")


def child_environment(**variables: str) -> dict[str, str]:
    """The environment of a server that we start: ours without the variables of other engines.

    So a server sees only its own credentials.
    """
    kept = {k: v for k, v in os.environ.items() if not k.startswith(_ENGINE_PREFIXES)}
    return kept | _ENGINE_DEFAULTS | variables


_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|API_KEY|AUTH_STRING|CREDENTIAL")
_NO_SECRET = ("_FILE", "_PATH", "_URI", "_URL", "_MODE")


def _secrets() -> Iterator[str]:
    """Values of variables that hold secrets, and passwords in addresses of variables."""
    for name, value in os.environ.items():
        if not name.startswith(_ENGINE_PREFIXES):
            continue
        if _SECRET_NAME.search(name) and not name.endswith(_NO_SECRET):
            yield value
            yield value.partition(":")[2]  # of user:password
        with suppress(ValueError):
            yield urlsplit(value).password or ""


def name_variables(text: str) -> str:
    """A message of a library with the values of ``AWS_*`` variables replaced by their names.

    For refusals of such a value, as it may be a secret in the wrong place.
    """
    values = {v: k for k, v in os.environ.items() if k.startswith("AWS_") and len(v) >= 8}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, f"${values[value]}")
    return text


def engine_variable(name: str) -> str | None:
    """A variable of an engine, such as PREFECT_API_URL; none when it is not set or empty."""
    return os.environ.get(name) or None
