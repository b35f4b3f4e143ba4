"""What a run has in hand, written down beforehand: so that a picture that kills the process (the
system ran out of memory, say) does not stand before all others night after night.

A run announces its pictures by the hundred. When it dies, its successor takes those that were
announced and are not done after all others, one by one, and announces each by itself: the next
death names the picture.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator

from mirnet.batch.plan import Turn, WorkItem
from mirnet.batch.records import RUNS, SUMMARY, Row
from mirnet.batch.storage import Store
from mirnet.errors import StorageError

logger = logging.getLogger(__name__)

IN_HAND = "in-hand.json"


class InHand:
    """The pictures of one run that are on their way.

    Args:
        run: the folder of the run.
        block: so many are announced with one request.
    """

    def __init__(self, run: Store, *, block: int) -> None:
        self._run, self._block = run, block

    def rows(
        self, items: Iterable[WorkItem], process: Callable[[Iterable[WorkItem]], Iterator[Row]]
    ) -> Iterator[Row]:
        """What ``process`` makes of the items: of all that are no suspects at once, then of each
        suspect. At the end nothing is in hand, also if the run is stopped.

        Args:
            process: takes items one after the other, no more than a block ahead of their ends.
        """
        try:
            for suspect, group in itertools.groupby(items, key=lambda item: item.suspect):
                if not suspect:
                    yield from process(self._announced(group))
                    continue
                for item in group:
                    self._write([item.info.key])
                    yield from process([item])
        finally:
            self._clear()

    def _announced(self, items: Iterator[WorkItem]) -> Iterator[WorkItem]:
        before: list[str] = []
        while block := list(itertools.islice(items, self._block)):
            keys = [item.info.key for item in block]
            self._write(before + keys)
            before = keys
            yield from block

    def _write(self, keys: list[str]) -> None:
        self._run.put(IN_HAND, json.dumps(keys).encode(), content_type="application/json")

    def _clear(self) -> None:
        try:
            self._run.delete(IN_HAND)
        except StorageError as error:
            logger.warning("pictures that were in hand go last in the next run: %s", error)


def suspects(records: Store) -> dict[str, Turn]:
    """What was in hand in the runs that died since the last one that ended.

    Raises:
        StorageError: a file of them is not readable.
    """
    runs = records.child(RUNS)
    by_run: dict[str, set[str]] = {}
    for info in runs.list():
        run_id, _, name = info.key.partition("/")
        by_run.setdefault(run_id, set()).add(name)
    found: dict[str, Turn] = {}
    for run_id in sorted(by_run, reverse=True):
        if SUMMARY in by_run[run_id]:
            break
        if IN_HAND not in by_run[run_id]:
            continue
        run = runs.child(run_id)
        try:
            keys = [str(key) for key in json.loads(run.get(IN_HAND).data)]
        except (ValueError, TypeError) as error:
            place = run.address(IN_HAND)
            raise StorageError(f"{place} is not readable; delete it", transient=False) from error
        turn = Turn.CULPRIT if len(keys) == 1 else Turn.SUSPECT
        for key in keys:
            found[key] = max(turn, found.get(key, turn))
    return found
