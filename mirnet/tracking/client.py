"""Connection to MLflow: a client for an address, and its failures as one line."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from mirnet.config import Settings, apply_engine_defaults
from mirnet.errors import ServiceError, first_line
from mirnet.extras import need
from mirnet.tracking.sqlite_store import local_store, make_whole

if TYPE_CHECKING:
    from mlflow import MlflowClient

_CONNECT_TIMEOUT_S = 5.0
_DEFAULTS = {
    # MLflow's own defaults wait up to 4 minutes with 7 retries of 120 s each
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}

_REFUSALS = (
    "BAD_REQUEST",
    "INVALID_PARAMETER_VALUE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "RESOURCE_DOES_NOT_EXIST",
    "UNAUTHENTICATED",
)


def connect(settings: Settings) -> MlflowClient:
    """A client of the configured tracking store and registry.

    A SQLite store is created, and brought to the installed schema, on the first call: whoever only
    reads asks :func:`has_store` before.

    Raises:
        ServiceError: no answer, or access refused; names the address.
    """
    return connect_uri(settings.mlflow_uri)


def connect_uri(uri: str) -> MlflowClient:
    """:func:`connect` for a tracking URI by itself, as processes of the training have it."""
    apply_engine_defaults(**_DEFAULTS)
    from mlflow import MlflowClient

    # it logs the making of the tables, and each error of the database before it raises it
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    _reach(uri)
    with service_errors(uri):
        if store := local_store(uri):
            make_whole(store)
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def has_store(settings: Settings) -> bool:
    """Whether there is anything to read: a server, or a local store. Does not need MLflow."""
    store = local_store(settings.mlflow_uri)
    return store is None or store.exists()


def nothing_yet(settings: Settings) -> str:
    """The end of a line that says that something is missing: where there is no store, that."""
    return "" if has_store(settings) else f": nothing was tracked in {settings.workspace} yet"


def check_tracking(settings: Settings) -> None:
    """Check within seconds whether MLflow can be used, before any compute is spent.

    Raises:
        ServiceError: no answer, or access refused; names the address.
    """
    client = connect(settings)
    with service_errors(settings.mlflow_uri):
        client.search_experiments(max_results=1)


def artifact_root(settings: Settings) -> str | None:
    """Root of the artifacts of new experiments; none: the server decides."""
    if settings.artifact_uri:
        return settings.artifact_uri
    if settings.mlflow_uri.startswith(("http://", "https://")):
        return None
    return (settings.workspace / "mlartifacts").resolve().as_uri()


class ignored(AbstractContextManager[None]):  # noqa: N801 - used like contextlib.suppress
    """Ends a block at MLflow's error of this code, such as ``RESOURCE_ALREADY_EXISTS``."""

    def __init__(self, error_code: str) -> None:
        self._error_code = error_code

    def __exit__(self, _type: object, error: object, _traceback: object) -> bool:
        return getattr(error, "error_code", None) == self._error_code


@contextmanager
def service_errors(uri: str) -> Iterator[None]:
    """Convert errors of MLflow, its HTTP client and its database to :class:`ServiceError`."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (MlflowException, RequestException, SQLAlchemyError, OSError) as error:
        if isinstance(error, ServiceError):
            raise
        refused = isinstance(error, MlflowException) and error.error_code in _REFUSALS
        raise ServiceError(
            f"MLflow at {uri}: {first_line(error)[:300]}", transient=not refused
        ) from error


def _reach(uri: str) -> None:
    """Fail fast without a listener or driver; MLflow would retry for minutes."""
    if store := local_store(uri):
        folder = store.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceError(
                f"MLflow at {uri}: cannot create {folder}: {error.strerror}. "
                "Set MIRNET_WORKSPACE or MIRNET_TRACKING_URI",
                transient=False,
            ) from error
        return
    parts = urlsplit(uri)
    if parts.scheme in ("postgresql", "postgresql+psycopg2"):
        need("stack", "psycopg2")
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ServiceError(
            f"MLflow at {uri} cannot be reached: {error}. Start it, or correct MIRNET_TRACKING_URI"
        ) from error
