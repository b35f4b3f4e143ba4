"""From the error codes of S3 to our errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mirnet.errors import StorageError
from mirnet.storage.store import (
    NoSuchPlace,
    ObjectMissing,
    ObjectRefused,
    TransientStorageError,
)

SECRET = "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or the AWS profile"
_ADVICE = {
    "NoSuchBucket": "no such bucket; create it or correct its name",
    "InvalidBucketName": "not a valid bucket name",
    "InvalidAccessKeyId": f"unknown access key; {SECRET}",
    "SignatureDoesNotMatch": f"wrong secret key; {SECRET}",
    "ExpiredToken": "the credentials have expired; renew them",
    "ExpiredTokenException": "the credentials have expired; renew them",
    "InvalidToken": f"the session token is not valid; {SECRET}",
    "RequestTimeTooSkewed": "this machine's clock is off; set it",
    "PermanentRedirect": "the bucket is in another region; set AWS_REGION",
    "AllAccessDisabled": "the bucket has been disabled by its provider",
    "AccountProblem": "the account has been disabled by its provider",
    "NotImplemented": "the store lacks this request; needed are conditional writes (If-None-Match, "
    "If-Match)",
    "AccessDenied": "access denied; these credentials need s3:ListBucket, s3:GetObject on the "
    "source and s3:PutObject on the target",
}
_NO_PLACE = {"NoSuchBucket", "InvalidBucketName"}
_BY_STATUS = {301: "PermanentRedirect", 403: "AccessDenied"}
_RETRIED = {
    "ConditionalRequestConflict",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
}


class ConditionFailed(StorageError):
    """412: another writer was first."""


def explain(response: Mapping[str, Any], place: str) -> StorageError:
    """Our error for the response of boto3's ``ClientError``, in one line that says what to do.

    Args:
        place: the object or bucket, for the message.
    """
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = str(response.get("Error", {}).get("Code", ""))
    if status == 412 or code == "PreconditionFailed":
        return ConditionFailed(f"{place}: somebody else wrote it first")
    if code in ("", str(status), "Forbidden", "Moved Permanently"):  # of a HEAD, without a body
        code = _BY_STATUS.get(status, code)
    if code in _ADVICE:
        kind = NoSuchPlace if code in _NO_PLACE else StorageError
        return kind(f"{place}: {_ADVICE[code]} ({code})", transient=False)
    if status == 404:
        return ObjectMissing(f"{place}: no such object")
    if code in _RETRIED or status in (409, 429) or status >= 500:
        return TransientStorageError(f"{place}: {code} ({status})")
    message = response.get("Error", {}).get("Message") or "refused"
    return ObjectRefused(f"{place}: {message} ({code})", transient=False)
