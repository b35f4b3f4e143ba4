"""Suspects: images that were in flight when a process died. They are decoded and enhanced in a
child process, one after the other, and quarantined after some deaths.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from mirnet.batch.engine import open_engine
from mirnet.batch.image_job import Downloaded, ImageJob
from mirnet.batch.image_work import Encoded, ImageWork, Problem
from mirnet.batch.inflight import Alone
from mirnet.batch.isolation import Child, ChildDied, ChildNotStarted, Limits, Message
from mirnet.batch.manifest import KILLS, Row
from mirnet.batch.pipeline import waited
from mirnet.batch.plan import WorkItem
from mirnet.batch.run_config import BatchRunConfig
from mirnet.config import Settings
from mirnet.params import EnhanceParams
from mirnet.signals import advance

logger = logging.getLogger(__name__)

_GIVEN_UP = Problem("quarantined", KILLS)
_GIB = 2**30


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
        """In the child: the handler."""
        engine = open_engine(self.enhance, self.params.strength)
        engine.fix_shapes(self.run_config)
        return partial(_handle, ImageWork(self.params, engine, self.format))


def _handle(work: ImageWork, message: Message) -> Message:
    output = work.whole(message.parts[0], name=message.facts["name"])
    if isinstance(output, Problem):
        return Message({"problem": asdict(output)})
    parts = {"data": output.data, "rejected": output.rejected}
    facts = {
        "content_type": output.content_type,
        "passed": output.passed,
        "columns": output.columns,
        "parts": [name for name, part in parts.items() if part is not None],
    }
    return Message(facts, tuple(part for part in parts.values() if part is not None))


def _output(answer: Message) -> Encoded | Problem:
    facts = answer.facts
    if "problem" in facts:
        return Problem(**facts["problem"])
    parts = dict(zip(facts["parts"], answer.parts, strict=True))
    return Encoded(
        parts.get("data"),
        facts["content_type"],
        facts["passed"],
        facts["columns"],
        parts.get("rejected"),
    )


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
        self._limits = Limits(settings.image_limit_s, gib * _GIB if gib else None)
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
        """End the child."""
        if self._child is not None:
            self._child.close()

    def _row(self, item: WorkItem, alone: Alone, pool: ThreadPoolExecutor) -> Row:
        fetched = waited(pool.submit(self._job.fetch, item))
        if isinstance(fetched, Row):
            return fetched
        if item.deaths >= self._attempts:
            # processes died of it that did not work in a child, or died with theirs
            return waited(pool.submit(self._job.finish, fetched, _GIVEN_UP))
        with alone(item):
            output = self._whole(fetched)
        return waited(pool.submit(self._job.finish, fetched, output))

    def _whole(self, got: Downloaded) -> Encoded | Problem:
        key = got.item.info.key
        for death in range(got.item.deaths + 1, self._attempts + 1):
            child = self._started()
            if child is None:
                return self._job.work.whole(got.data, name=key)
            try:
                return _output(child.ask(Message({"name": key}, (got.data,))))
            except ChildDied as died:
                advance()
                logger.warning("%s: death %d of %d: %s", key, death, self._attempts, died)
            except ChildNotStarted as error:
                self._do_alone(str(error))
                return self._job.work.whole(got.data, name=key)
        return _GIVEN_UP

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
