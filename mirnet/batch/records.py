"""The one place that parses records of a target: strictly, since anybody who can write there can
change them. What is damaged is named, and no error of a parser gets any further.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from mirnet.errors import StorageError, problem_of

T = TypeVar("T")


def parse_json(kind: TypeAdapter[T], data: bytes, *, address: str, advice: str) -> T:
    """A record in JSON, with exactly the types of ``kind``; unknown keys are ignored.

    Args:
        address: the full name of the object, for the error.
        advice: what to do if it is damaged, for the error.

    Raises:
        StorageError: it is no JSON, nested too deeply, or has a wrong type or value somewhere.
    """
    try:
        return kind.validate_json(data, strict=True)
    except ValidationError as error:
        raise StorageError(f"{address} {advice} ({problem_of(error)})", transient=False) from error
