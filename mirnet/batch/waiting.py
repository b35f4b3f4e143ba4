"""Waits for work in threads that a stop ends."""

from __future__ import annotations

from collections.abc import Collection
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TypeVar

from mirnet.signals import advance, stop_if_asked

T = TypeVar("T")

# interval of checks for a stop
_LOOK_S = 0.5


def waited(future: Future[T]) -> T:
    """The result of a future; a stop ends the wait."""
    ended([future])
    return future.result()


def ended(futures: Collection[Future[T]]) -> set[Future[T]]:
    """Finished futures, at least one; checks for a stop while waiting."""
    while not (done := wait(futures, timeout=_LOOK_S, return_when=FIRST_COMPLETED).done):
        stop_if_asked()
    advance()
    return done
