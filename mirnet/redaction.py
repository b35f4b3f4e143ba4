"""Text from outside, made safe to show: secrets of addresses replaced, control characters escaped.

Names of files, objects, models and runs, and messages of other libraries, reach terminals, logs,
MLflow, Prefect and pages. :func:`shown` is applied where they leave: by the error types, the log
records, the console and the Markdown of artifacts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

HIDDEN = "***"
_SHORTEST = 8

_WORDS = r"(?:token|secret|passw(?:or)?d|passphrase|pwd|api[-_]?key|access[-_]?key|credential)"
_NAME = rf"[\w.-]{{0,40}}{_WORDS}[\w.-]{{0,40}}|[\w.-]{{0,40}}auth[-_]?string"
_IN_QUERY = rf"{_NAME}|[\w.-]{{0,40}}signature|awsaccesskeyid|auth|sas|sig|key|code"
# Bounded where a match may run over a whole text, so that hostile ones cost no quadratic time.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # drivers of databases accept passwords with any character but @
    (
        re.compile(
            r"(?i)((?:postgres|mysql|mariadb|mssql|oracle|redis|mongo)[\w+]{0,30}://)\S{0,500}@"
        ),
        rf"\1{HIDDEN}@",
    ),
    (re.compile(r"://[^\s/?#]*@"), f"://{HIDDEN}@"),
    # a password with a slash, where no number of a port can be meant
    (
        re.compile(r"://[^\s/?#@:]{1,200}:(?!\d{1,5}(?:[^\w]|$))[^\s@]{1,500}@"),
        f"://{HIDDEN}@",
    ),
    (re.compile(r"(?i)(https?://[^\s?#\"'<>]{0,1000}\?)[^\s#\"'<>]+"), rf"\1{HIDDEN}"),
    (re.compile(rf"(?i)([?&#;](?:{_IN_QUERY})=)[^&#;\s\"'<>]+"), rf"\1{HIDDEN}"),
    (
        re.compile(rf"(?i)(?<![\w.-])((?:{_NAME})\s?=\s?)(?:\"[^\"]*\"|'[^']*'|[^\s,;&\"']+)"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(rf"(?i)([\"'](?:{_NAME})[\"']\s?:\s?)(?:\"[^\"]*\"|'[^']*')"), rf"\1'{HIDDEN}'"),
    (
        re.compile(
            r"(?i)(authorization[\"']?\s?[:=]\s?b?[\"']?(?:basic|bearer|token)\s)[^\s\"',]+"
        ),
        rf"\1{HIDDEN}",
    ),
)
_USER_PART = re.compile(r"(?<=://)[^\s/?#]*@")

_known: tuple[str, ...] = ()


def hide(values: Iterable[str]) -> None:
    """Replace these values as well, wherever they occur; shorter than 8 characters: ignored.

    For secrets of the environment, which libraries may quote outside of an address. The last call
    counts.
    """
    global _known
    _known = tuple(sorted({v for v in values if len(v) >= _SHORTEST}, key=len, reverse=True))


def redacted(text: str) -> str:
    """The text with the secrets of its addresses replaced by ``***``.

    These are the user part of a URL, the query of an HTTP address, named secrets
    (``token=``, ``X-Amz-Signature=``, ``password=``), and the values given to :func:`hide`.
    """
    for value in _known:
        text = text.replace(value, HIDDEN)
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def has_secret(address: str) -> bool:
    """Whether an address (``scheme://...``) carries credentials."""
    return "://" in address and redacted(address) != address


def without_user(address: str) -> str:
    """The address without its user part, as a link that still works."""
    return _USER_PART.sub("", address)


def escaped(text: str) -> str:
    """The text on one line: line breaks, terminal escapes and bidirectional controls escaped."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def shown(text: str) -> str:
    """The text on one line without secrets and control characters."""
    return escaped(redacted(text))


def shown_lines(text: str) -> str:
    """:func:`shown` for text of several lines, such as a traceback.

    All lines but the first are indented, so that none can pass for a log entry of its own.
    """
    return "\n  ".join(escaped(line) for line in redacted(text).rstrip("\n").split("\n"))


def shown_json(value: Any, *, indent: int | None = None) -> str:
    """JSON without secrets; control characters are escaped as JSON does (``\\u001b``)."""
    text = json.dumps(redacted_tree(value), indent=indent, ensure_ascii=False)
    if text.isprintable():
        return text
    # outside of its strings JSON has no character that is not printable but the line break, and
    # inside of them that one is escaped already
    return "".join(
        c if c.isprintable() or c == "\n" else json.dumps(c, ensure_ascii=True)[1:-1] for c in text
    )


def redacted_tree(value: Any) -> Any:
    """:func:`redacted` for every text of a JSON value."""
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, dict):
        return {redacted(str(key)): redacted_tree(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted_tree(each) for each in value]
    return value
