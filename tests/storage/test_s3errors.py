"""The messages of refused requests: what to set, by its exact name."""

from __future__ import annotations

import re

import pytest

from mirnet.storage.s3errors import explain

VARIABLES = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
NAMED = {
    "InvalidAccessKeyId": VARIABLES,
    "SignatureDoesNotMatch": VARIABLES,
    "InvalidToken": VARIABLES,
    "PermanentRedirect": {"AWS_REGION"},
    "ExpiredToken": set(),
    "NoSuchBucket": set(),
    "AccessDenied": set(),
}


@pytest.mark.parametrize("code", NAMED)
def test_messages_name_the_variables_to_check(code: str) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    message = str(explain(answer, "s3://bucket/key"))
    assert set(re.findall(r"\b[A-Z0-9]+_[A-Z0-9_]+\b|\bAWS\w+", message)) == NAMED[code]
    assert message.endswith(f"({code})")
