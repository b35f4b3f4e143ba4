"""The wall-clock time of a search, over all calls of the command."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mirnet.search.rows import Progress, Rows

_SAVE_EVERY_S = 2.0
_FINISH_SHARE, _FINISH_S = 0.03, 10.0
Count = Callable[[int, int], None]


@dataclass
class Clock:
    """The time of all calls together, which is saved now and then."""

    rows: Rows
    minutes: float
    before_s: float
    told: Count | None
    started: float
    saved: float = 0.0

    @property
    def total_s(self) -> float:
        return 60 * self.minutes

    @property
    def spent_s(self) -> float:
        return self.before_s + time.monotonic() - self.started

    @property
    def left_s(self) -> float:
        return self.total_s - self.spent_s

    @property
    def finish_s(self) -> float:
        """Kept for images and page."""
        return _FINISH_S + _FINISH_SHARE * self.total_s

    def tick(self) -> None:
        """Save the time, and tell of it."""
        if self.told is not None:
            self.told(min(int(self.spent_s), int(self.total_s)), int(self.total_s))
        if time.monotonic() - self.saved > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        self.saved = time.monotonic()
        self.rows.save(Progress(minutes=self.minutes, spent_s=self.spent_s))
