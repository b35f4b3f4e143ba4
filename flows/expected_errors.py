"""An expected error of a flow is one line, once: in Prefect's log, or on stderr of a command.

Prefect logs an error when it ends a task, when it ends the flow, in both final states and when it
leaves the engine, mostly with a traceback.
"""

from __future__ import annotations

import logging
import re

from prefect.logging.handlers import PrefectConsoleHandler

from mirnet.errors import MirnetError

_LOGGERS = ("prefect.engine", "prefect.flow_runs", "prefect.task_runs")
_FINISHED = re.compile(r"(Finished in state (?:Failed|TimedOut))\(.*?(\w+)[:(].*", re.S)
_TIMEOUT = re.compile(r"(Task|Flow) run failed due to timeout: (\w+)\((['\"])(.*)\3\)", re.S)
_ENDS_THE_FLOW = "Encountered exception during execution"


class _Once(logging.Filter):
    """Keeps the line of the flow, drops the others, and every traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, MirnetError):
            return self._keep(record, str(error), once=record.msg.startswith(_ENDS_THE_FLOW))
        text = record.getMessage()
        if found := _TIMEOUT.fullmatch(text):
            _, name, _, message = found.groups()
            if name in _expected():
                return self._keep(record, message, once=found[1] == "Flow")
        if found := _FINISHED.fullmatch(text):
            names = set(re.findall(r"\w+", text))
            if names & _expected():
                record.msg, record.args = found[1], ()
        return True

    @staticmethod
    def _keep(record: logging.LogRecord, text: str, *, once: bool) -> bool:
        record.msg, record.args = text, ()
        record.exc_info = record.exc_text = None
        record.expected_error = True
        return once


def _expected() -> set[str]:
    """The names of all expected errors."""
    found, todo = set[str](), [MirnetError]
    while todo:
        kind = todo.pop()
        found.add(kind.__name__)
        todo += kind.__subclasses__()
    return found


def log_once() -> None:
    """Let Prefect log an expected error once. Idempotent."""
    for name in _LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(present, _Once) for present in logger.filters):
            logger.addFilter(_Once())


def leave_to_stderr() -> None:
    """Keep the console free of expected errors, for a command that prints them itself."""
    for name in ("", "prefect", *_LOGGERS):
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, PrefectConsoleHandler):
                handler.addFilter(_not_expected)


def _not_expected(record: logging.LogRecord) -> bool:
    return not getattr(record, "expected_error", False)
