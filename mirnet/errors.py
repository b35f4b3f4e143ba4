"""Error types. The command line turns each into one line and an exit code.

Messages name the file, key, field or address, and say what to do.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from mirnet.redaction import shown


class MirnetError(Exception):
    """Base of every error that a user is meant to read. Exit code 1.

    Messages quote names, addresses and other libraries: they become one line without control
    characters and without the secrets of addresses (:mod:`mirnet.redaction`).
    """

    exit_code = 1

    def __init__(self, *args: Any) -> None:
        super().__init__(*(shown(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(MirnetError, ValueError):
    """A parameter, option or argument is wrong. Exit code 2."""

    exit_code = 2


class ExtraMissing(UsageError):
    """A command needs a package of an extra that is not installed; names the extra."""

    def __init__(self, what: str, *, extra: str) -> None:
        super().__init__(f"{what}: not installed; pip install 'mirnet-pipeline[{extra}]'")
        self.extra = extra


class DataError(MirnetError, ValueError):
    """A data set, pair or file is wrong or missing."""


class TooManyBad(DataError):
    """A batch completed, but too many of its images were bad; ``result`` has the counts."""

    def __init__(self, message: str, result: Any = None) -> None:
        super().__init__(message)
        self.result = result


class NotAPicture(TooManyBad):
    """The single file that was named is not an image. Exit code 2."""

    exit_code = UsageError.exit_code


NO_MEMORY = "memory"
"""The reason of an :class:`ImageError` that concerns this machine, not the file."""


class ImageError(DataError):
    """Bytes that are not a supported image; ``reason`` is a short stable code.

    Codes: ``empty``, ``not-an-image``, ``truncated``, ``too-large``, ``unsupported``, ``animated``;
    ``memory`` if no damage was found, but the image is too large for this machine.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class WeightsError(MirnetError, ValueError):
    """A checkpoint has an unknown format or is incomplete."""


class UntrustedModel(WeightsError):
    """A version or alias of the registry that no trusted key signed; says how to sign it."""


class TrainingError(MirnetError):
    """Training cannot start or continue."""


class ServiceError(MirnetError, ConnectionError):
    """Ray, MLflow, Prefect or S3 cannot be reached or refuses us; names the address.

    ``transient`` says whether the same call may work later; flows retry only those.
    """

    def __init__(self, message: str, *, transient: bool = True) -> None:
        super().__init__(message)
        self.transient = transient


class DeviceBroken(ServiceError):
    """A GPU is unusable for this process; an image in flight may be the cause."""


class WorkersLost(ServiceError):
    """Workers of a cluster died too often; an image in flight may be the cause."""


class StorageError(ServiceError):
    """An object store refuses, or an object or bucket is missing."""


class GateRefused(MirnetError):
    """Validation blocked the data, or the promotion gate refused the model. Exit code 3."""

    exit_code = 3


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def last_line(text: str) -> str:
    """The last line that is not blank, such as the cause in the output of a program."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")


def without_kind(message: str) -> str:
    """A message of pydantic about a value that a function refused, as the function wrote it."""
    return message.removeprefix("Value error, ")


def problem_of(error: Exception) -> str:
    """The first problem of a record in one line, without its values, which may be of any size."""
    if not isinstance(error, ValidationError):
        return first_line(error)[:200]
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part)[:40] for part in first["loc"])
    return f"{where or 'content'}: {without_kind(first['msg'])}"[:200]
