"""Health checks: a real request to the service, with credentials.

A bare ``/health`` shows that a process answers, not that it accepts clients or has access to its
database: MLflow answers 200 there while it rejects every client with 403.
"""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

# True if the service is healthy, else one line with the problem.
Probe = Callable[[], str | None]

_TIMEOUT_S = 15.0
# no proxy for loopback, whatever the environment says
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def request(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: object | None = None,
    method: str | None = None,
    timeout_s: float = _TIMEOUT_S,
) -> tuple[int, bytes]:
    """Status and content of one HTTP request; an HTTP error is a status, not an exception.

    Raises:
        OSError: no answer.
    """
    data = None if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json"} if data is not None else {}
    call = urllib.request.Request(url, data=data, headers=sent | dict(headers or {}), method=method)
    try:
        with _OPENER.open(call, timeout=timeout_s) as answer:
            return int(answer.status), answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def basic(user_and_password: str) -> dict[str, str]:
    """The header of basic authentication."""
    token = base64.b64encode(user_and_password.encode()).decode()
    return {"Authorization": f"Basic {token}"}


def bearer(token: str) -> dict[str, str]:
    """The header of token authentication."""
    return {"Authorization": f"Bearer {token}"}


def http_probe(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: object | None = None,
    accept: Callable[[Any], bool] | None = None,
) -> Probe:
    """200 on an API path, and, with ``accept``, JSON for which it returns True."""

    def probe() -> str | None:
        try:
            status, content = request(url, headers=headers, body=body)
        except OSError as error:
            return f"{url}: {getattr(error, 'reason', error)}"
        if status != 200:
            return f"{url}: HTTP {status}"
        if accept is None:
            return None
        try:
            return None if accept(json.loads(content)) else f"{url}: not there yet"
        except (ValueError, KeyError, TypeError, IndexError):
            return f"{url}: an answer that is not understood"

    return probe
