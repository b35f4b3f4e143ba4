"""Suspects: images that were in flight when a process died. They are decoded and enhanced in a
child process, one after the other, and quarantined after deaths in several runs: a bad night of a
machine does not condemn an image. A death for memory counts only if the image took more than a
healthy one of its size may: the kernel ends our child first also if others fill the memory.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from mirnet.batch.child_work import (
    WorkInChild,
    ask_for_output,
    ask_for_size,
    ask_for_view,
    most_answer_bytes,
    num_pixels_in,
    output_in,
    view_in,
)
from mirnet.batch.image_job import Downloaded, ImageJob
from mirnet.batch.image_work import Encoded, Problem
from mirnet.batch.inflight import Alone
from mirnet.batch.isolation import Child, ChildDied, ChildNotStarted, Limits
from mirnet.batch.ledger import InputVersion
from mirnet.batch.manifest import DIED, KILLS, Row, death_reason
from mirnet.batch.messages import Message
from mirnet.batch.plan import WorkItem
from mirnet.batch.waiting import waited
from mirnet.config import Settings
from mirnet.errors import NO_MEMORY
from mirnet.images import Seen
from mirnet.images.formats import DECODE_FILE
from mirnet.signals import advance
from mirnet.storage.store import ObjectInfo

logger = logging.getLogger(__name__)

_GIVEN_UP = Problem("quarantined", KILLS)
_GIB = 2**30
T = TypeVar("T")


# what a healthy image may take in the child: a tile in the network with its libraries; decoding,
# measures and output of a pixel, as floating-point numbers
_MODEL_BYTES = 4 * 2**30
_PIXEL_BYTES = 200


def _needed(num_pixels: int, num_bytes: int) -> int:
    return _MODEL_BYTES + num_pixels * _PIXEL_BYTES + num_bytes * DECODE_FILE


@dataclass(frozen=True, slots=True)
class _Death:
    """Of a child. ``counts``: against the image; not if it may be of a shortage of memory."""

    how: str
    counts: bool


class Suspects:
    """The suspects of one process, with one child for all of them until :meth:`close`.

    Args:
        job: downloads, writes and quarantines; does the work itself if there can be no child.
        work: of the child.
        settings: limits of the child.
    """

    def __init__(self, job: ImageJob, work: WorkInChild, settings: Settings) -> None:
        self._job, self._work = job, work
        gib = settings.child_memory_gib
        self._limits = Limits(
            settings.image_limit_s,
            gib * _GIB if gib else None,
            answer_bytes=most_answer_bytes(job.params),
        )
        self._attempts = job.params.kill_attempts
        self._child: Child | None = None
        self._alone = False

    def rows(self, items: Iterable[WorkItem], alone: Alone) -> Generator[Row]:
        """One row per item, in their order.

        Args:
            alone: announces an item; not while a store is waited for, which is no fault of it.
        """
        with ThreadPoolExecutor(1, thread_name_prefix="mirnet-io") as pool:
            for item in items:
                yield self._row(item, alone, pool)

    def close(self) -> None:
        """End the child; a further image starts another one."""
        child, self._child = self._child, None
        if child is not None:
            child.close()

    def _row(self, item: WorkItem, alone: Alone, pool: ThreadPoolExecutor) -> Row:
        fetched = waited(pool.submit(self._job.fetch, item))
        if isinstance(fetched, Row):
            return fetched
        if item.deaths >= self._attempts or item.died:
            # processes died of it that did not work in a child, or died with theirs
            output: Encoded | Problem = self._ended(item.deaths, "the process that worked on it")
        else:
            output = self._isolated(fetched, alone)
        return waited(pool.submit(self._job.finish, fetched, output))

    def _isolated(self, got: Downloaded, alone: Alone) -> Encoded | Problem:
        """One death is of one image: each that comes before is announced by itself."""

        def look(each: InputVersion, data: bytes) -> Seen | Problem | None:
            with alone(WorkItem(ObjectInfo(each[0], len(data), each[1], 0.0), "")):
                return self._view(each[0], data)

        before = self._job.seen_before(got.item, look)
        if isinstance(before, Problem):
            return before
        with alone(got.item):
            return self._whole(got, before)

    def _whole(self, got: Downloaded, before: Sequence[Seen]) -> Encoded | Problem:
        child = self._started()
        if child is not None:
            try:
                return self._in_child(child, got, before)
            except ChildNotStarted as error:
                self._do_alone(str(error))
        return self._job.work.whole(got.data, name=got.item.info.key, before=before)

    def _view(self, key: str, data: bytes) -> Seen | Problem | None:
        """Of an image that comes before a suspect; none if the child dies of it."""
        child = self._started()
        if child is not None:
            try:
                found = self._asked(child, key, data, ask_for_view(key, data), view_in)
            except ChildNotStarted as error:
                self._do_alone(str(error))
            else:
                if not isinstance(found, _Death):
                    return found
                why = f"{NO_MEMORY}: {key}, which comes before it: {found.how}"
                return None if found.counts else Problem("failed", why)
        return self._job.work.view(data, name=key)

    def _in_child(self, child: Child, got: Downloaded, before: Sequence[Seen]) -> Encoded | Problem:
        key, deaths = got.item.info.key, got.item.deaths
        message = ask_for_output(key, got.data, before)
        found = self._asked(child, key, got.data, message, output_in)
        if not isinstance(found, _Death):
            return found
        if found.counts:
            return self._ended(deaths + 1, found.how)
        return Problem("failed", death_reason(deaths, self._attempts, NO_MEMORY, found.how))

    def _asked(
        self, child: Child, key: str, data: bytes, message: Message, parse: Callable[[Message], T]
    ) -> T | _Death:
        num_pixels = 0
        try:
            told = _parsed(child, ask_for_size(key, data), num_pixels_in)
            num_pixels = min(told, self._job.params.max_pixels)
            return _parsed(child, message, parse)
        except ChildDied as died:
            advance()
            logger.warning("%s: the child died: %s", key, died)
            shortage = died.took is not None and died.took <= _needed(num_pixels, len(data))
            return _Death(str(died), counts=not shortage)

    def _ended(self, deaths: int, how: str) -> Problem:
        if deaths >= self._attempts:
            return _GIVEN_UP
        return Problem("failed", death_reason(deaths, self._attempts, DIED, how))

    def _started(self) -> Child | None:
        if self._child is None and not self._alone:
            self._job.work.engine.give_back()  # the child has a model of its own
            try:
                self._child = Child(pickle.dumps(self._work), self._limits)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                self._do_alone(str(error))
        return self._child

    def _do_alone(self, reason: str) -> None:
        logger.warning("images that may have killed a process are not isolated: %s", reason)
        self._child, self._alone = None, True


def _parsed(child: Child, message: Message, parse: Callable[[Message], T]) -> T:
    answer = child.ask(message)
    try:
        return parse(answer)
    except ValueError as error:
        child.close()
        raise ChildDied from error
