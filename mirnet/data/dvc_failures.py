"""What DVC logs when it fails: per file, where its error has only their number."""

from __future__ import annotations

import logging
from typing import Self


class DvcFailures(logging.Handler):
    """Collects the failures that DVC logs in a block, instead of printing them."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []
        self.first: BaseException | None = None
        self._loggers = [logging.getLogger(name) for name in ("dvc", "dvc_data", "dvc_objects")]
        self._before = [(one.handlers, one.propagate) for one in self._loggers]

    def emit(self, record: logging.LogRecord) -> None:
        """See :class:`logging.Handler`."""
        reason = record.exc_info[1] if record.exc_info else None
        self.first = self.first or reason
        message = record.getMessage() + (f" - {reason}" if reason else "")
        self.messages.append(" ".join(message.split()))

    def __enter__(self) -> Self:
        for one in self._loggers:
            one.handlers, one.propagate = [self], False
        return self

    def __exit__(self, *_: object) -> None:
        for one, before in zip(self._loggers, self._before, strict=True):
            one.handlers, one.propagate = before
