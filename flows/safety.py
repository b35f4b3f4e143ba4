"""What Prefect stores and shows, without secrets and without markup of other people.

Prefect keeps parameters, messages of states, logs and artifacts in its database for ever.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ParamSpec, TypeVar

from prefect import Flow
from pydantic import Field

from mirnet.errors import MirnetError
from mirnet.full_disk import full_disk_explained
from mirnet.redaction import redacted_tree, shown

P = ParamSpec("P")
R = TypeVar("R")

_WORDS = "[Tt]oken|[Ss]ecret|[Pp]assword|[Ss]ignature|[Cc]redential"
Address = Annotated[
    str,
    Field(
        json_schema_extra={
            "pattern": rf"^(?!.*://[^/?#]*@)(?!.*://.*[?&#;]([^=&]*({_WORDS})[^=&]*|sig|key)=)"
        }
    ),
]
"""A place without credentials. By the pattern a server refuses to create the run of a deployment,
so that it stores no secret; the stages refuse the rest."""

_MARKUP = re.compile(r"[\\`*_{}\[\]()<>#+\-!|~&:.@]")


def without_secrets(made: Flow[P, R]) -> Flow[P, R]:
    """The flow, whose parameters go to Prefect without secrets when it is called from Python."""
    serialize = made.serialize_parameters

    def redacting(parameters: dict[str, Any]) -> dict[str, Any]:
        return dict(redacted_tree(serialize(parameters)))

    made.serialize_parameters = redacting  # type: ignore[method-assign]
    return made


@contextmanager
def redacted_errors() -> Iterator[None]:
    """Errors of other libraries with secrets in their text, as an error without them.

    Prefect stores the text of an error as the message of a state. A full disk is one line.
    """
    try:
        with full_disk_explained():
            yield
    except MirnetError:
        raise  # redacted by its type
    except Exception as error:
        text = str(error)
        if shown(text) == text:
            raise
        raise MirnetError(f"{type(error).__name__}: {text}") from error


def redacting(function: Callable[P, R]) -> Callable[P, R]:
    """A function within :func:`redacted_errors`, for tasks."""
    return redacted_errors()(function)


def markdown_text(text: str) -> str:
    """Text as Markdown shows it: on one line, without its own markup, links and HTML."""
    return _MARKUP.sub(lambda found: f"\\{found[0]}", shown(text))
