"""Records of the images in flight, so that an image that kills the process (out of memory, for
example) does not block all others in every run.

A run announces its images in blocks, a worker on Ray each of its batches. When it dies, its
successor processes those that were announced and are not done after all others, one by one, each
announced separately: the next death identifies the image.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager

from mirnet.batch.ledger import InputVersion, PastRuns, RunFolder
from mirnet.batch.manifest import Row
from mirnet.batch.plan import Death, WorkItem
from mirnet.errors import DeviceBroken, MirnetError, StorageError, WorkersLost
from mirnet.signals import was_stuck

logger = logging.getLogger(__name__)


Process = Callable[[Iterable[WorkItem]], Generator[Row]]
"""Takes items one after the other; gives one row per item, in any order."""
Alone = Callable[[WorkItem], AbstractContextManager[None]]
"""Announces an item within a block, in which it is decoded and enhanced."""
ProcessSuspects = Callable[[Iterable[WorkItem], Alone], Generator[Row]]
"""As :data:`Process`, one by one."""


class Inflight:
    """The images in flight of one process.

    Args:
        run: the folder of the run.
        block: number of images announced with one request.
        attempt: of a worker (:meth:`RunFolder.begin_attempt`); empty: of the job.
    """

    def __init__(self, run: RunFolder, *, block: int, attempt: str = "") -> None:
        self._run, self._block, self._attempt = run, block, attempt
        self._pending: dict[str, WorkItem] = {}

    def rows(
        self, items: Iterable[WorkItem], process: Process, suspects: ProcessSuspects
    ) -> Generator[Row]:
        """The rows of the items, suspects separately. At the end nothing is in flight, also after
        an orderly stop.
        """

        def begun(items: Iterable[WorkItem], *, suspect: bool) -> Generator[Row]:
            return suspects(items, self._alone) if suspect else process(self._announced(items))

        with in_good_order(self._clear):
            for suspect, group in itertools.groupby(items, key=lambda item: item.suspect):
                with closing(begun(group, suspect=suspect)) as rows:
                    for row in rows:
                        self._pending.pop(row.input_key, None)
                        yield row

    def _announced(self, items: Iterable[WorkItem]) -> Iterator[WorkItem]:
        rest = iter(items)
        while block := list(itertools.islice(rest, self._block)):
            # with those before them that have not ended
            self._pending.update((item.info.key, item) for item in block)
            # and those that are read with them
            read = (
                each for item in self._pending.values() for each in (_input(item), *item.before)
            )
            self._write(dict.fromkeys(read))
            yield from block

    @contextmanager
    def _alone(self, item: WorkItem) -> Iterator[None]:
        self._pending = {item.info.key: item}
        self._write([_input(item)])
        yield
        self._clear()

    def _write(self, inputs: Iterable[InputVersion]) -> None:
        self._run.write_inflight(inputs, attempt=self._attempt)

    def _clear(self) -> None:
        _clear(self._run, self._attempt)


def _clear(run: RunFolder, attempt: str = "") -> None:
    with _only_logged():
        run.clear_inflight(attempt=attempt)


def clear_all(run: RunFolder) -> None:
    """As the job, after all of its workers have ended in good order."""
    with _only_logged():
        run.clear_all_inflight()


@contextmanager
def _only_logged() -> Iterator[None]:
    try:
        yield
    except StorageError as error:
        logger.warning("images that were in flight go last in the next run: %s", error)


@contextmanager
def in_good_order(clear: Callable[[], None]) -> Iterator[None]:
    """Nothing is in flight at the end, also after an orderly stop."""
    try:
        yield
    except BaseException as error:
        if _is_orderly(error):
            clear()
        raise
    clear()


def _is_orderly(error: BaseException) -> bool:
    """Whether no image in flight can be the cause of the end of a run.

    Other errors count as a death: an image that breaks the device, fills the memory or never ends
    must not block the others.
    """
    if was_stuck():
        return False
    if isinstance(error, Exception):
        deadly = isinstance(error, DeviceBroken | WorkersLost)
        return isinstance(error, MirnetError) and not deadly
    return True  # KeyboardInterrupt, SystemExit, Prefect's own


@contextmanager
def announced(run: RunFolder, items: Iterable[WorkItem]) -> Iterator[None]:
    """Items that the job looks at before their turn; suspects if it dies of that."""
    run.write_inflight(map(_input, items))
    with in_good_order(lambda: _clear(run)):
        yield


def _input(item: WorkItem) -> InputVersion:
    return item.info.key, item.info.version


def suspects(past: PastRuns) -> dict[InputVersion, list[Death]]:
    """Keys and versions of the images in flight when a process died, with these deaths.

    Raises:
        StorageError: a file of them is not readable.
    """
    found: dict[InputVersion, list[Death]] = {}
    for place, (run_id, inputs) in enumerate(past.inflight()):
        for each in inputs:
            found.setdefault(each, []).append(Death(run_id, place, alone=len(inputs) == 1))
    return found
