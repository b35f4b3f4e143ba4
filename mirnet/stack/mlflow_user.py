"""The account ``pipeline`` of flows and trainings on an MLflow server with users.

``python -m mirnet.stack.mlflow_user`` creates it in containers, from MIRNET_TRACKING_URI,
MLFLOW_ADMIN_PASSWORD, MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; `mirnet stack` does
the same by itself.
"""

from __future__ import annotations

import sys

from mirnet.config import engine_variable, load_settings
from mirnet.errors import MirnetError, ServiceError, UsageError
from mirnet.stack.probes import basic, request


def create_user(url: str, *, admin_password: str, name: str, password: str) -> None:
    """Create the account unless it exists.

    Raises:
        ServiceError: the server does not answer or refuses.
    """
    api = f"{url.rstrip('/')}/api/2.0/mlflow/users/create"
    try:
        status, answer = request(
            api,
            headers=basic(f"admin:{admin_password}"),
            body={"username": name, "password": password},
        )
    except OSError as error:
        raise ServiceError(f"{api}: {getattr(error, 'reason', error)}") from error
    if status != 200 and b"RESOURCE_ALREADY_EXISTS" not in answer:
        raise ServiceError(f"{api}: HTTP {status}")


def main() -> int:
    """Create the account given by the environment; exit code 0, or that of the error."""
    names = ("MLFLOW_ADMIN_PASSWORD", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
    try:
        values = [engine_variable(name) for name in names]
        url = load_settings().tracking_uri
        if url is None or not all(values):
            raise UsageError(f"MIRNET_TRACKING_URI, {', '.join(names)}: all of them are needed")
        admin, name, password = (value or "" for value in values)
        create_user(url, admin_password=admin, name=name, password=password)
    except MirnetError as error:
        print(f"mirnet: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
