"""How S3 is reached: endpoint, region and timeouts, the same for every client that we have."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import boto3
import botocore.loaders
import botocore.session
import botocore.utils
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from mirnet.config import Settings, name_variables
from mirnet.errors import StorageError

# boto3 alone reads AWS_DEFAULT_REGION only; all other tools of AWS read AWS_REGION first
_VARIABLES = {"region": ("region", ["AWS_REGION", "AWS_DEFAULT_REGION"], None, None)}


@dataclass(frozen=True)
class S3Connection:
    """All but the credentials, which every process finds for itself.

    Attributes:
        region: none: not known here; clients look elsewhere, then take us-east-1.
        read_timeout_s: seconds without a byte.
    """

    DEFAULT_REGION: ClassVar[str] = "us-east-1"

    endpoint_url: str | None
    region: str | None = None
    connect_timeout_s: float = 5.0
    read_timeout_s: float = 20.0


def connection(uri: str, settings: Settings) -> S3Connection:
    """How to reach ``uri`` by the settings; the region by the environment or the profile.

    Raises:
        StorageError: the profile is not there.
    """
    try:
        region = _session().region_name
    except BotoCoreError as error:
        raise StorageError(f"{uri}: {name_variables(str(error))}", transient=False) from error
    return S3Connection(
        endpoint_url=settings.s3_endpoint_url,
        region=region,
        connect_timeout_s=min(5.0, settings.s3_timeout_s),
        read_timeout_s=settings.s3_timeout_s,
    )


def make_client(
    where: S3Connection,
    *,
    attempts: int = 3,
    access_key: str | None = None,
    secret_key: str | None = None,
) -> Any:
    """A client of boto3; one per process, never across a fork.

    Args:
        access_key, secret_key: if not those of the process.
    """
    return _session().client(
        "s3",
        endpoint_url=where.endpoint_url,
        region_name=where.region or where.DEFAULT_REGION,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            connect_timeout=where.connect_timeout_s,
            read_timeout=where.read_timeout_s,
            max_pool_connections=32,
        ),
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
    )


def list_buckets(endpoint_url: str, access_key: str, secret_key: str) -> list[str]:
    """Buckets of a server that we started; raises StorageError as long as it does not answer."""
    where = S3Connection(endpoint_url, connect_timeout_s=2, read_timeout_s=5)
    client = make_client(where, attempts=1, access_key=access_key, secret_key=secret_key)
    try:
        return [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]
    except (BotoCoreError, ClientError) as error:
        raise StorageError(f"{endpoint_url}: {error}") from error


def _session() -> boto3.session.Session:
    """Credentials are looked up afresh; the models of the API, a second of JSON, are shared."""
    inner = botocore.session.Session(_VARIABLES)
    inner.register_component("data_loader", _api_models())
    parsers = inner.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_timestamp)
    return boto3.session.Session(botocore_session=inner)


@functools.cache
def _api_models() -> botocore.loaders.Loader:
    return botocore.loaders.create_loader()


def _timestamp(value: Any) -> datetime:
    """As botocore reads times, but ISO 8601 without dateutil, which takes most of a listing."""
    if isinstance(value, str) and value[4:5] == "-" and value.endswith("Z"):
        return datetime.fromisoformat(value)
    return botocore.utils.parse_timestamp(value)
