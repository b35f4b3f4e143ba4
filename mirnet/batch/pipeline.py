"""Download and decode, model, encode and upload at the same time, with bounded queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice

from mirnet.batch.plan import WorkItem
from mirnet.batch.process import Enhanced, Fetched, ImageJob
from mirnet.batch.records import Row


def process(items: Iterable[WorkItem], job: ImageJob, *, num_threads: int) -> Iterator[Row]:
    """Yield a row an item, in the order in which they end.

    The model runs in the calling thread, one image at a time in the order of the plan, so that
    outputs do not depend on timing. At most ``2 * num_threads`` images are held on either side.

    Raises:
        StorageError: what stops a run: credentials, permission, bucket, disk, lease.
    """
    window = 2 * num_threads
    todo = iter(items)
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="mirnet-io")
    fetching: deque[Future[Fetched | Enhanced | Row]] = deque()
    committing: set[Future[Row]] = set()
    try:
        while True:
            fetching.extend(
                pool.submit(job.fetch, item) for item in islice(todo, window - len(fetching))
            )
            if not fetching:
                break
            state = fetching.popleft().result()
            if isinstance(state, Fetched):
                state = job.apply(state)
            if isinstance(state, Enhanced):
                committing.add(pool.submit(job.commit, state))
            else:
                yield state
            while len(committing) >= window or any(each.done() for each in committing):
                done, committing = wait(committing, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        while committing:
            done, committing = wait(committing, return_when=FIRST_COMPLETED)
            yield from (each.result() for each in done)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
