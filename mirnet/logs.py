"""Log lines with the ids of their run: as text, or as one JSON object per line.

A process works on one run at a time, so the ids apply to all of its threads.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

Style = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# attached by Prefect's loggers to the records of a flow or task run
_ATTACHED = ("flow_name", "flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
_ids: dict[str, str] = {}


class JsonLines(logging.Formatter):
    """Time (UTC), level, logger, message, the ids in force, and the error with its traceback."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        attached = {name: getattr(record, name, None) for name in _ATTACHED}
        entry |= _ids | {name: str(value) for name, value in attached.items() if value}
        if record.exc_info and record.exc_info[1] is not None:
            entry["error"] = f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False)


def configure(level: int, style: Style) -> None:
    """Log to standard error, for the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler])


def bind(**ids: str | None) -> None:
    """Ids for all later lines of this process."""
    for name, value in ids.items():
        if value is None:
            _ids.pop(name, None)
        else:
            _ids[name] = value


@contextmanager
def bound(**ids: str | None) -> Iterator[None]:
    """Ids for the lines of a block, such as ``mlflow_run_id``; empty ones are left out."""
    before = dict(_ids)
    bind(**{name: value for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        _ids.clear()
        _ids.update(before)
