"""Records of the images in flight, so that an image that kills the process (out of memory, for
example) does not block all others in every run.

A run announces its images in blocks. When it dies, its successor processes those that were
announced and are not done after all others, one by one, each announced separately: the next death
identifies the image.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing

from mirnet.batch.ledger import InputVersion, PastRuns, RunFolder
from mirnet.batch.manifest import Row
from mirnet.batch.plan import Turn, WorkItem
from mirnet.errors import DeviceBroken, MirnetError, StorageError

logger = logging.getLogger(__name__)


class Inflight:
    """The images in flight of one run.

    Args:
        run: the folder of the run.
        block: number of images announced with one request.
    """

    def __init__(self, run: RunFolder, *, block: int) -> None:
        self._run, self._block = run, block
        self._pending: dict[str, WorkItem] = {}

    def rows(
        self, items: Iterable[WorkItem], process: Callable[[Iterable[WorkItem]], Generator[Row]]
    ) -> Generator[Row]:
        """The rows of the items: first all that are not suspects, then each suspect separately.
        At the end nothing is in flight, also after an orderly stop.

        Args:
            process: takes items one after the other; gives one row per item, in any order.
        """
        try:
            for suspect, group in itertools.groupby(items, key=lambda item: item.suspect):
                for part in _parts(group, alone=suspect):
                    with closing(process(self._announced(part))) as rows:
                        for row in rows:
                            self._pending.pop(row.input_key, None)
                            yield row
        except Exception as error:
            # other errors count as a death: an image that breaks the device or fills the memory
            # must not block the others
            if isinstance(error, MirnetError) and not isinstance(error, DeviceBroken):
                self._clear()
            raise
        except BaseException:  # an orderly stop: KeyboardInterrupt, SystemExit, Prefect's own
            self._clear()
            raise
        self._clear()

    def _announced(self, items: Iterable[WorkItem]) -> Iterator[WorkItem]:
        rest = iter(items)
        while block := list(itertools.islice(rest, self._block)):
            # with those before them that have not ended
            self._pending.update((item.info.key, item) for item in block)
            self._write()
            yield from block

    def _write(self) -> None:
        self._run.write_inflight(
            [(item.info.key, item.info.version) for item in self._pending.values()]
        )

    def _clear(self) -> None:
        try:
            self._run.clear_inflight()
        except StorageError as error:
            logger.warning("images that were in flight go last in the next run: %s", error)


def _parts(items: Iterable[WorkItem], *, alone: bool) -> Iterator[Iterable[WorkItem]]:
    if not alone:
        yield items
        return
    for item in items:
        yield [item]


def suspects(past: PastRuns) -> dict[InputVersion, tuple[Turn, int]]:
    """Keys and versions of the images in flight of the runs that died.

    With the turn of each, and the index of the last run that died with it alone: an image that was
    alone by chance in a run killed from outside comes before one that kills every run.

    Raises:
        StorageError: a file of them is not readable.
    """
    found: dict[InputVersion, tuple[Turn, int]] = {}
    for place, inputs in enumerate(past.inflight()):
        turn = (Turn.CULPRIT, place) if len(inputs) == 1 else (Turn.SUSPECT, 0)
        for each in inputs:
            found[each] = max(turn, found.get(each, turn))
    return found
