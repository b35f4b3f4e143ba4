"""Log lines with the ids of their run: as text, or as one JSON object per line.

A process works on one run at a time, so the ids apply to all of its threads. Entry points make all
records of the process safe to show, those of other libraries included: :func:`protect_output`.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

from mirnet.redaction import shown, shown_json, shown_lines

Style = Literal["text", "json"]

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# attached by Prefect's loggers to the records of a flow or task run
_ATTACHED = ("flow_name", "flow_run_id", "flow_run_name", "task_run_id", "task_run_name")
_OURS = ("mirnet", "flows")
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
        return shown_json(entry)


def configure(level: int, style: Style) -> None:
    """Log to standard error, for the command line."""
    protect_output()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines() if style == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=level, handlers=[handler])


def protect_output() -> None:
    """Log records, and errors that nobody catches, without secrets and control characters.

    For entry points only, as it applies to every logger of the process: the handlers of Prefect,
    MLflow and Ray, which send records to their servers, cannot be reached otherwise. May be called
    again.
    """
    if logging.getLogRecordFactory() is not _safe_record:
        global _make_record
        _make_record = logging.getLogRecordFactory()
        logging.setLogRecordFactory(_safe_record)
    # somebody else's are left, such as those of a test runner
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _print_error
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _print_error_of_thread


_make_record: Callable[..., logging.LogRecord] = logging.LogRecord


def _safe_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    record = _make_record(*args, **kwargs)
    try:
        message = record.getMessage()
    except (KeyError, TypeError, ValueError):  # arguments that do not fit, which logging prints
        message = f"{record.msg} {record.args}"
    # only other libraries write messages of several lines
    ours = record.name.partition(".")[0] in _OURS
    safe = shown(message) if ours else shown_lines(message)
    if safe != message:
        record.msg, record.args = safe, ()
    if record.exc_info and record.exc_info[1] is not None:
        record.exc_text = _traceback(record.exc_info[1])
    return record


def _traceback(error: BaseException) -> str:
    return shown_lines("".join(traceback.format_exception(error)))


def _print_error(kind: type[BaseException], error: BaseException, _: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, None)
        return
    print(_traceback(error), file=sys.stderr)


def _print_error_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is None or isinstance(ended.exc_value, SystemExit):
        return
    name = ended.thread.name if ended.thread else "a thread"
    print(f"Exception in {shown(name)}: {_traceback(ended.exc_value)}", file=sys.stderr)


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
