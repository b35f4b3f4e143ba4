"""What a run has in hand, written down beforehand: so that a picture that kills the process (the
system ran out of memory, say) does not stand before all others night after night.

A run announces its pictures by the hundred. When it dies, its successor takes those that were
announced and are not done after all others, one by one, and announces each by itself: the next
death names the picture.
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
    """The pictures of one run that are on their way.

    Args:
        run: the folder of the run.
        block: so many are announced with one request.
    """

    def __init__(self, run: RunFolder, *, block: int) -> None:
        self._run, self._block = run, block
        self._pending: dict[str, WorkItem] = {}

    def rows(
        self, items: Iterable[WorkItem], process: Callable[[Iterable[WorkItem]], Generator[Row]]
    ) -> Generator[Row]:
        """What ``process`` makes of the items: of all that are no suspects at once, then of each
        suspect. At the end nothing is in hand, also if the run is stopped in good order.

        Args:
            process: takes items one after the other; gives a row for each, in any order.
        """
        try:
            for suspect, group in itertools.groupby(items, key=lambda item: item.suspect):
                for part in _parts(group, alone=suspect):
                    with closing(process(self._announced(part))) as rows:
                        for row in rows:
                            self._pending.pop(row.input_key, None)
                            yield row
        except Exception as error:
            # the others are as a death: a picture that breaks the device or fills the memory must
            # not stand before the others
            if isinstance(error, MirnetError) and not isinstance(error, DeviceBroken):
                self._clear()
            raise
        except BaseException:  # somebody stops us: KeyboardInterrupt, SystemExit, Prefect's own
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
            logger.warning("pictures that were in hand go last in the next run: %s", error)


def _parts(items: Iterable[WorkItem], *, alone: bool) -> Iterator[Iterable[WorkItem]]:
    if not alone:
        yield items
        return
    for item in items:
        yield [item]


def suspects(past: PastRuns) -> dict[InputVersion, tuple[Turn, int]]:
    """Keys and versions of what was in flight in the runs that died.

    With each its turn, and the place among the runs of the last one that died with it alone:
    what was alone by chance in a run that somebody killed comes before what kills each of them.

    Raises:
        StorageError: a file of them is not readable.
    """
    found: dict[InputVersion, tuple[Turn, int]] = {}
    for place, inputs in enumerate(past.inflight()):
        turn = (Turn.CULPRIT, place) if len(inputs) == 1 else (Turn.SUSPECT, 0)
        for each in inputs:
            found[each] = max(turn, found.get(each, turn))
    return found
