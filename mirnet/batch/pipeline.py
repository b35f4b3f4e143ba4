"""Download and decode, model, encode and upload at the same time, with bounded queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from mirnet.batch.plan import WorkItem
from mirnet.batch.process import Enhanced, Fetched, ImageJob
from mirnet.batch.records import Row

# Of files, in flight on either side of the model; a picture takes about ten times its file. One
# that is larger goes alone.
MAX_FILE_BYTES = 64 * 2**20


def process(items: Iterable[WorkItem], job: ImageJob, *, num_threads: int) -> Iterator[Row]:
    """Yield a row an item, in the order in which they end.

    The model runs in the calling thread, one image at a time in the order of the plan, so that
    outputs do not depend on timing. At most ``2 * num_threads`` images, and about
    ``MAX_FILE_BYTES`` of files, are held on either side.

    Raises:
        StorageError: what stops a run: credentials, permission, bucket, disk, lease.
    """
    window = 2 * num_threads
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="mirnet-io")
    todo = deque(islice(source := iter(items), window))
    fetching: deque[tuple[int, Future[Fetched | Enhanced | Row]]] = deque()
    committing: dict[Future[Row], int] = {}
    try:
        while todo or fetching:
            while todo and _has_room((size for size, _ in fetching), todo[0].info.size, window):
                item = todo.popleft()
                todo.extend(islice(source, 1))
                fetching.append((item.info.size, pool.submit(job.fetch, item)))
            size, fetched = fetching.popleft()
            state = fetched.result()
            if isinstance(state, Fetched):
                state = job.apply(state)
            if isinstance(state, Row):
                yield state
            else:
                committing[pool.submit(job.commit, state)] = size
            while committing and (
                any(each.done() for each in committing)
                or not _has_room(committing.values(), 0, window)
            ):
                yield from _ended(committing)
        while committing:
            yield from _ended(committing)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _has_room(held: Iterable[int], size: int, window: int) -> bool:
    sizes = list(held)
    return not sizes or (len(sizes) < window and sum(sizes) + size <= MAX_FILE_BYTES)


def _ended(committing: dict[Future[Row], int]) -> Iterator[Row]:
    """Wait for at least one; take all that have ended."""
    for each in wait(committing, return_when=FIRST_COMPLETED).done:
        del committing[each]
        yield each.result()
