"""Progress of long commands on standard error: a bar on a terminal, otherwise a line at times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from mirnet.cli.terminal import SafeConsole, note

Count = Callable[[int, int], None]
LINE_EVERY_S = 10.0

errors = SafeConsole(stderr=True)


@contextmanager
def progress(title: str, unit: str = "") -> Iterator[Count]:
    """Show that a command works; yields a function of the number done and the total.

    On a terminal a bar with count, rate and time left. Otherwise a line every ten seconds, so that
    a command that is quick writes nothing. Of a total of one the terminal shows the elapsed time.

    Args:
        unit: what is counted; empty: nothing is, and the elapsed time is shown.
    """
    if errors.is_terminal:
        with _bar(title, unit) as count:
            yield count
    elif unit:
        yield _Lines(title, unit)
    else:
        with _clock(title):
            yield lambda _done, _total: None


class _Lines:
    """Writes when it is called, so at most once for each thing that is counted."""

    def __init__(self, title: str, unit: str) -> None:
        self._title, self._unit = title, unit
        self._started = self._told = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if total <= 1 or now - self._told < LINE_EVERY_S:
            return
        self._told = now
        left_s = (now - self._started) / done * (total - done) if done else None
        left = "" if left_s is None else f", about {left_s:.0f} s left"
        note(f"{self._title}: {done} of {total} {self._unit}{left}")


@contextmanager
def _clock(title: str) -> Iterator[None]:
    started, ended = time.monotonic(), threading.Event()

    def tell() -> None:
        while not ended.wait(LINE_EVERY_S):
            note(f"{title}: {time.monotonic() - started:.0f} s")

    teller = threading.Thread(target=tell, name="mirnet-progress", daemon=True)
    teller.start()
    try:
        yield
    finally:
        ended.set()
        teller.join()


class _Rate(ProgressColumn):
    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {self._unit}/s" if task.speed and task.total else "")


class _Counted(MofNCompleteColumn):
    """Nothing before there is a total, nor of a total of one."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.total and task.total > 1 else Text()


@contextmanager
def _bar(title: str, unit: str) -> Iterator[Count]:
    columns = (
        TextColumn(title, markup=False),
        BarColumn(),
        _Counted(),
        _Rate(unit),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors) as shown:
        task = shown.add_task(title, total=None)

        def count(done: int, total: int) -> None:
            shown.update(task, completed=done, total=total, visible=total > 1 or done < total)

        yield count
