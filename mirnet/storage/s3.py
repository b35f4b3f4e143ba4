"""S3 as a store, through boto3. Holds no secret: boto3's chain finds them."""

from __future__ import annotations

import contextlib
import copy
import functools
import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import IO, Any, TypeVar

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.response import StreamingBody
from s3transfer.exceptions import RetriesExceededError

from mirnet.config import Settings, name_variables, refuse_credentials
from mirnet.errors import StorageError, UsageError
from mirnet.signals import advance
from mirnet.storage import s3session
from mirnet.storage.s3errors import SECRET, ConditionFailed, explain
from mirnet.storage.store import (
    Blob,
    Head,
    KeyRefused,
    ObjectChanged,
    ObjectInfo,
    ObjectMissing,
    Store,
    TransientStorageError,
)

_T = TypeVar("_T")
_ATTEMPTS = 6
# small: a read returns only when it is full, and the deadline is checked in between
_CHUNK = 1 << 12
# resolution of Date and Last-Modified
_HTTP_RESOLUTION_S = 1.0
_STREAM_MIN_BYTES_PER_S = 50_000


@dataclass(slots=True)
class _ETags:
    """How this server wants the ETag in If-Match, and whether it has accepted one."""

    form: str = '"%s"'
    proven: bool = False


class S3Store(Store):
    """A bucket, or a prefix in it. One client per process; not usable after a fork."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        prefix: str,
        endpoint: str,
        *,
        timeout_s: float = 20.0,
    ) -> None:
        self._client = client
        self._etags = _ETags()  # of the server: children share it
        self._timeout_s = timeout_s
        self.endpoint = endpoint
        self._set_place(bucket, prefix)

    def _set_place(self, bucket: str, prefix: str) -> None:
        self.bucket, self.prefix = bucket, prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")

    @classmethod
    def from_uri(cls, uri: str, settings: Settings) -> S3Store:
        """Make a client for ``s3://bucket/prefix``; no request yet.

        Raises:
            UsageError: no bucket in the URI, or a prefix that has more than one spelling.
            StorageError: boto3 refuses the endpoint or the profile.
        """
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise UsageError(f"{uri}: write it as s3://bucket/prefix")
        prefix = _prefix(uri, prefix)
        try:
            client = s3session.make_client(s3session.connection(uri, settings))
        except (BotoCoreError, ValueError) as error:
            reason = name_variables(str(error))
            raise StorageError(f"{uri}: {reason}", transient=False) from error
        refuse_credentials(client.meta.endpoint_url)
        return cls(
            client, bucket, prefix, client.meta.endpoint_url, timeout_s=settings.s3_timeout_s
        )

    @classmethod
    def with_keys(
        cls, bucket: str, endpoint_url: str, *, access_key: str, secret_key: str
    ) -> S3Store:
        """A bucket of a server that we started."""
        client = s3session.make_client(
            s3session.S3Connection(endpoint_url), access_key=access_key, secret_key=secret_key
        )
        return cls(client, bucket, "", endpoint_url)

    def check(self) -> None:
        """List one key: shows endpoint, credentials, bucket and permission."""
        self._holds(self.prefix)

    def is_there(self) -> bool:
        """A prefix exists if it has objects, or if the whole bucket is empty."""
        try:
            return self._holds(self.prefix) or not self._holds("")
        except StorageError:  # unknown without permission to list outside of the prefix
            return False

    def _holds(self, prefix: str) -> bool:
        with self._explained(""):
            page = self._client.list_objects_v2(Bucket=self.bucket, Prefix=prefix, MaxKeys=1)
        return bool(page.get("Contents"))

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{self.prefix}{key}"

    def child(self, name: str) -> S3Store:
        child = copy.copy(self)
        child._set_place(self.bucket, f"{self.prefix}{name}/")
        return child

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """One request per thousand keys."""
        where: dict[str, str] = {"Bucket": self.bucket, "Prefix": self.prefix + prefix}
        while True:
            page = self._again("", functools.partial(self._client.list_objects_v2, **where))
            advance()
            for entry in page.get("Contents", ()):
                yield ObjectInfo(
                    entry["Key"][len(self.prefix) :],
                    entry["Size"],
                    _etag(entry),
                    entry["LastModified"].timestamp(),
                )
            if not page.get("IsTruncated"):
                return
            where["ContinuationToken"] = page["NextContinuationToken"]

    def head(self, key: str) -> Head | None:
        """One request. The age is the response's Date minus Last-Modified, the server's clock."""
        try:
            answer = self._again(key, lambda: self._client.head_object(**self._named(key)))
        except ObjectMissing:
            return None
        date = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        # a Date without a zone is UTC by HTTP
        age = (date.replace(tzinfo=UTC) - answer["LastModified"]).total_seconds()
        age = max(0.0, age - _HTTP_RESOLUTION_S) if age >= 0 else age
        return Head(answer["ContentLength"], _etag(answer), answer.get("Metadata", {}), age)

    def get(self, key: str) -> Blob:
        """Download; restarted if the stream breaks or is too slow."""

        def once() -> Blob:
            answer = self._client.get_object(**self._named(key))
            data = _read(answer["Body"], answer["ContentLength"], timeout_s=self._timeout_s)
            kind = answer.get("ContentType", "")
            return Blob(data, _etag(answer), answer.get("Metadata", {}), kind)

        return self._again(key, once)

    def read_into(self, key: str, file: IO[bytes], *, version: str | None = None) -> None:
        """Large objects in parallel parts."""
        self._check_version(key, version)

        def once() -> None:
            file.seek(0)
            file.truncate()
            self._client.download_fileobj(*self._named(key).values(), file)

        self._again(key, once)
        self._check_version(key, version)

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        replaces: str | None = None,
        absent: bool = False,
    ) -> str | None:
        write = functools.partial(
            self._put, key, data, ContentType=content_type, Metadata=dict(metadata or {})
        )
        if replaces is None:
            return write(**({"IfNoneMatch": "*"} if absent else {}))
        version = write(IfMatch=self._etags.form % replaces)
        if version is None and not self._etags.proven and self._is(key, replaces):
            # Ceph 16 compares it with the quotes
            version = write(IfMatch=replaces)
            if version is not None:
                self._etags.form = "%s"
        self._etags.proven |= version is not None
        return version

    def _put(self, key: str, data: bytes, **options: Any) -> str | None:
        """The version; none where the condition does not hold."""

        def once() -> str:
            answer = self._client.put_object(**self._named(key), Body=data, **options)
            return _etag(answer)

        try:
            return self._again(key, once)
        except ConditionFailed:
            return None
        except ObjectMissing:  # AWS, for If-Match without an object
            if "IfMatch" in options:
                return None
            raise

    def _check_version(self, key: str, version: str | None) -> None:
        # not by a condition of the request: not every server keeps that of a copy
        if version is not None and not self._is(key, version):
            raise ObjectChanged(f"{self.address(key)}: changed since it was listed")

    def _content_type(self, key: str) -> str:
        answer = self._again(key, lambda: self._client.head_object(**self._named(key)))
        return str(answer.get("ContentType") or "application/octet-stream")

    def _is(self, key: str, version: str) -> bool:
        head = self.head(key)
        return head is not None and head.version == version

    def ignored_condition(self, key: str, data: bytes) -> str | None:
        """Two requests, which both have to be refused; the ETag as this server wants it."""
        other = self._etags.form % ("0" * 32)
        never = {"If-None-Match": {"IfNoneMatch": "*"}, "If-Match": {"IfMatch": other}}
        for name, condition in never.items():
            if self._put(key, data, **condition) is not None:
                return name
        return None

    def delete(self, key: str) -> None:
        self._again(key, lambda: self._client.delete_object(**self._named(key)))

    def copy_from(
        self,
        source: Store,
        key: str,
        target_key: str,
        *,
        metadata: Mapping[str, str],
        version: str | None = None,
    ) -> None:
        """On the server if both are on it, else through a temporary file; any size.

        Also through a file where another version than the given one would replace a copy that is
        there: a server checks no version while it copies.
        """
        place = self._named(target_key)
        options: dict[str, Any] = {"Metadata": dict(metadata)}
        if isinstance(source, S3Store):
            options["ContentType"] = source._content_type(key)
        if (
            isinstance(source, S3Store)
            and source.endpoint == self.endpoint
            and (version is None or self.head(target_key) is None)
        ):
            origin = source._named(key)
            options["MetadataDirective"] = "REPLACE"
            source._check_version(key, version)
            self._again(
                target_key,
                lambda: self._client.copy(origin, place["Bucket"], place["Key"], ExtraArgs=options),
            )
            try:
                source._check_version(key, version)
            except ObjectChanged:
                self.delete(target_key)
                raise
            return
        with tempfile.TemporaryFile() as file:
            source.read_into(key, file, version=version)

            def once() -> None:
                file.seek(0)
                # boto3 closes what it has read
                with os.fdopen(os.dup(file.fileno()), "rb") as again:
                    self._client.upload_fileobj(again, *place.values(), ExtraArgs=options)

            self._again(target_key, once)

    def _named(self, key: str) -> dict[str, str]:
        full = self.prefix + key
        if not key or len(full.encode("utf-8", "replace")) > 1024:
            raise KeyRefused(f"s3://{self.bucket}/{full}: S3 keys have 1 to 1024 bytes")
        return {"Bucket": self.bucket, "Key": full}

    def _again(self, key: str, once: Callable[[], _T]) -> _T:
        """Retry what boto3 does not: broken streams, lost races, failures after its own retries."""
        for attempt in range(_ATTEMPTS - 1):
            with contextlib.suppress(TransientStorageError), self._explained(key):
                return once()
            time.sleep(random.uniform(0, min(10.0, 0.2 * 2**attempt)))
        with self._explained(key):
            return once()

    @contextlib.contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        place = f"s3://{self.bucket}/{self.prefix}{key} at {self.endpoint}"
        try:
            yield
        except ClientError as error:
            raise explain(error.response, place) from error
        except EndpointConnectionError as error:
            raise TransientStorageError(
                f"{place}: cannot connect; is the server up, and is MIRNET_S3_ENDPOINT_URL or "
                "AWS_ENDPOINT_URL right?"
            ) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise StorageError(f"{place}: no credentials; {SECRET}", transient=False) from error
        except _BROKEN as error:
            raise TransientStorageError(f"{place}: {type(error).__name__}: {error}") from error
        except BotoCoreError as error:
            raise StorageError(f"{place}: {error}", transient=False) from error


def _prefix(uri: str, prefix: str) -> str:
    prefix = prefix.rstrip("/")
    if not prefix:
        return ""
    if any(part in ("", ".", "..") for part in prefix.split("/")):
        raise UsageError(f"{uri}: write it without //, /./ and /../, which S3 does not resolve")
    return f"{prefix}/"


class _SlowStream(Exception):
    """Fewer bytes per second than the minimum."""


_BROKEN = (
    HTTPClientError,
    IncompleteReadError,
    FlexibleChecksumError,
    Boto3Error,  # of transfers in parts
    RetriesExceededError,
    _SlowStream,
)


def _etag(answer: Mapping[str, Any]) -> str:
    return str(answer["ETag"]).strip('"')


def _read(body: StreamingBody, size: int, *, timeout_s: float) -> bytes:
    """Read to the end, with a deadline that grows with the size."""
    deadline = time.monotonic() + timeout_s + size / _STREAM_MIN_BYTES_PER_S
    with contextlib.closing(body):
        parts = []
        while chunk := body.read(_CHUNK):
            parts.append(chunk)
            if time.monotonic() > deadline:
                raise _SlowStream(f"less than {_STREAM_MIN_BYTES_PER_S} bytes per second")
    return b"".join(parts)
