"""The work of the child for suspects, and what it may answer.

A file may have taken over the child: an answer is parsed like a record that a stranger wrote, and
what is none of ours is an error here and not where it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from mirnet.batch.engine import open_engine
from mirnet.batch.image_work import Columns, Count, Encoded, ImageWork, Problem
from mirnet.batch.messages import Message
from mirnet.batch.run_config import BatchRunConfig
from mirnet.errors import problem_of
from mirnet.images import Seen, read_size
from mirnet.images.formats import TABLE
from mirnet.images.image import THUMBNAIL_SIDE
from mirnet.params import EnhanceParams

_CONTENT_TYPES = frozenset(entry.content_type for entry in TABLE)
# with the colours of a pixel in 16 bits, uncompressed, and metadata as large as the file
_PIXEL_BYTES, _HEAD_BYTES = 16, 16 * 2**20


@dataclass(frozen=True)
class WorkInChild:
    """Builds the handler of the child: the bytes of a file -> those of its output.

    Args:
        enhance: as of :func:`mirnet.batch.run.run_batch`; has to pickle.
        run_config: of the run, so that outputs have the same bytes.
    """

    enhance: Any
    params: EnhanceParams
    run_config: BatchRunConfig
    format: str | None = None

    def __call__(self) -> Callable[[Message], Message]:
        engine = open_engine(self.enhance, self.params)
        if self.params.evens:
            import mirnet.inference.scene  # noqa: F401 - torch, in the time of the start
        engine.fix_shapes(self.run_config)
        return partial(_handle, ImageWork(self.params, engine, self.format))


def ask_for_size(key: str, data: bytes) -> Message:
    """Answered by :func:`num_pixels_in`."""
    return Message({"do": "size", "name": key}, (data,))


def ask_for_view(key: str, data: bytes) -> Message:
    """Answered by :func:`view_in`."""
    return Message({"do": "view", "name": key}, (data,))


def ask_for_output(key: str, data: bytes, before: Sequence[Seen]) -> Message:
    """Answered by :func:`output_in`."""
    return Message({"do": "work", "name": key, "before": [*map(asdict, before)]}, (data,))


def most_answer_bytes(params: EnhanceParams) -> int:
    """No output is larger."""
    return params.max_pixels * _PIXEL_BYTES + params.max_bytes + _HEAD_BYTES


def _handle(work: ImageWork, message: Message) -> Message:
    name, data = message.facts["name"], message.parts[0]
    if message.facts["do"] == "size":
        return Message({"num_pixels": _num_pixels(data, name)})
    if message.facts["do"] == "view":
        view = work.view(data, name=name)
        kind = "problem" if isinstance(view, Problem) else "seen"
        return Message({kind: view and asdict(view)})
    before = [Seen(**each) for each in message.facts["before"]]
    output = work.whole(data, name=name, before=before)
    if isinstance(output, Problem):
        return Message({"problem": asdict(output)})
    parts = {"data": output.data, "rejected": output.rejected}
    facts = {
        "content_type": output.content_type,
        "passed": output.passed,
        "columns": output.columns.model_dump(),
        "parts": [name for name, part in parts.items() if part is not None],
    }
    return Message(facts, tuple(part for part in parts.values() if part is not None))


def _num_pixels(data: bytes, name: str) -> int:
    try:
        height, width = read_size(data, name=name)
    except Exception:  # noqa: BLE001 - decoding reports the problem
        return 0
    return height * width


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class _Size(_Strict):
    num_pixels: Count


class _Problem(_Strict):
    status: Literal["failed", "quarantined"]
    # one may name the key, of at most 1024 bytes
    reason: Annotated[str, Field(min_length=1, max_length=4000)]


class _WithProblem(_Strict):
    problem: _Problem


_SEEN = THUMBNAIL_SIDE**2


class _Seen(_Strict):
    thumbnail: Annotated[list[FiniteFloat], Field(min_length=_SEEN, max_length=_SEEN)]
    brightness: Annotated[float, Field(ge=0, le=1)]


class _WithSeen(_Strict):
    seen: _Seen | None


class _WithOutput(_Strict):
    content_type: str
    passed: Annotated[str, Field(min_length=1, max_length=1000)] | None
    columns: Columns
    parts: list[Literal["data", "rejected"]]


S = TypeVar("S", bound=_Strict)


def _parsed(kind: type[S], facts: dict[str, Any]) -> S:
    try:
        return kind.model_validate(facts)
    except ValidationError as error:
        raise ValueError(problem_of(error)) from error


def num_pixels_in(answer: Message) -> int:
    """By the header of the image; 0 where that is not readable.

    Raises:
        ValueError: it is not an answer to :func:`ask_for_size`.
    """
    return _parsed(_Size, answer.facts).num_pixels


def view_in(answer: Message) -> Seen | Problem | None:
    """As :meth:`ImageWork.view`.

    Raises:
        ValueError: it is not an answer to :func:`ask_for_view`.
    """
    if "problem" in answer.facts:
        found = _parsed(_WithProblem, answer.facts).problem
        return Problem(found.status, found.reason)
    seen = _parsed(_WithSeen, answer.facts).seen
    return None if seen is None else Seen(tuple(seen.thumbnail), seen.brightness)


def output_in(answer: Message) -> Encoded | Problem:
    """The output, or why there is none.

    Raises:
        ValueError: it is not an answer to :func:`ask_for_output`.
    """
    if "problem" in answer.facts:
        found = _parsed(_WithProblem, answer.facts).problem
        return Problem(found.status, found.reason)
    facts = _parsed(_WithOutput, answer.facts)
    parts = dict(zip(facts.parts, answer.parts, strict=True))
    if len(parts) != len(facts.parts) or facts.content_type not in _CONTENT_TYPES:
        raise ValueError("an output of an unknown kind")
    if facts.passed is None and ("rejected" in parts or not parts.get("data")):
        raise ValueError("an enhanced image without an output")
    return Encoded(
        parts.get("data"),
        facts.content_type,
        facts.passed,
        facts.columns,
        parts.get("rejected"),
    )
