"""Download, decode, model, encode and upload at the same time, with bounded queues."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from mirnet.batch.image_job import Downloaded, Enhanced, Fetched, ImageJob
from mirnet.batch.manifest import Row
from mirnet.batch.plan import WorkItem
from mirnet.batch.waiting import ended, waited

# files that are downloaded and not yet decoded; a larger one is processed alone
MAX_FILE_BYTES = 64 * 2**20
# decoded pixels, from before the model to the end of the upload: at most 24 bytes each (16 bit,
# transparency, before and after, and encoding) besides the file; larger images go alone
MAX_PIXELS = 24_000_000


def process(items: Iterable[WorkItem], job: ImageJob, *, num_threads: int) -> Generator[Row]:
    """Yield one row per item, in the order in which they finish.

    The model runs in the calling thread, in the order of the plan; images of a batched size
    wait until their batch is full. At most ``2 * num_threads`` images,
    ``MAX_FILE_BYTES`` of files and ``MAX_PIXELS`` are queued before the model, and as many after
    it.

    Raises:
        StorageError: failures that stop a run: credentials, permission, bucket, disk, lease.
    """
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="mirnet-io")
    try:
        yield from _Pipeline(items, job, pool, window=2 * num_threads).rows()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class _Pipeline:
    """The queues of one run, all used by one thread only."""

    def __init__(
        self, items: Iterable[WorkItem], job: ImageJob, pool: ThreadPoolExecutor, *, window: int
    ) -> None:
        self._todo, self._job, self._pool, self._window = iter(items), job, pool, window
        self._next = next(self._todo, None)
        self._downloads: deque[tuple[int, Future[Downloaded | Row]]] = deque()
        self._reads: deque[tuple[int, Future[Fetched | Enhanced | Row]]] = deque()
        # small images: less than one batch for each of a few sizes
        self._mates: dict[tuple[int, ...], list[Fetched]] = {}
        self._commits: dict[Future[Row], int] = {}

    def rows(self) -> Iterator[Row]:
        while self._next is not None or self._downloads or self._reads:
            self._start_downloads()
            yield from self._start_reads()
            if not self._reads:
                continue
            pixels, read = self._reads.popleft()
            # images of the same size are collected while the model works
            yield from self._hand_on(waited(read), pixels)
        for batch in self._mates.values():
            yield from self._run_model(batch)
        while self._commits:
            yield from self._ended_commits()

    def _start_downloads(self) -> None:
        while self._next is not None:
            size = self._next.info.size
            number = len(self._downloads) + len(self._reads)
            held = sum(size for size, _ in self._downloads)
            if number and (number >= self._window or held + size > MAX_FILE_BYTES):
                return
            self._downloads.append((size, self._pool.submit(self._job.download, self._next)))
            self._next = next(self._todo, None)

    def _start_reads(self) -> Iterator[Row]:
        """Start reads as far as there is room; wait for a download only without other work."""
        while self._downloads and (self._downloads[0][1].done() or not self._reads):
            got = waited(self._downloads[0][1])
            if isinstance(got, Row):
                self._downloads.popleft()
                yield got
                continue
            while not self._has_room(got.num_pixels):
                if self._reads:
                    return
                yield from self._ended_commits()
            self._downloads.popleft()
            self._reads.append((got.num_pixels, self._pool.submit(self._job.read, got)))
            self._start_downloads()

    def _has_room(self, pixels: int) -> bool:
        held = sum(size for size, _ in self._reads) + sum(self._commits.values())
        return held == 0 or held + pixels <= MAX_PIXELS

    def _hand_on(self, state: Fetched | Enhanced | Row, pixels: int) -> Iterator[Row]:
        if isinstance(state, Row):
            yield state
        elif isinstance(state, Enhanced):
            yield from self._commit(state, pixels)
        else:
            key = state.decoded.image.pixels.shape[:2]
            mates = self._mates.setdefault(key, [])
            mates.append(state)
            if len(mates) >= self._job.batch_size(state):
                yield from self._run_model(self._mates.pop(key))

    def _run_model(self, batch: list[Fetched]) -> Iterator[Row]:
        for state in self._job.apply(batch):
            if isinstance(state, Row):
                yield state
            else:
                height, width = state.image.pixels.shape[:2]
                yield from self._commit(state, height * width)

    def _commit(self, state: Enhanced, pixels: int) -> Iterator[Row]:
        self._commits[self._pool.submit(self._job.commit, state)] = pixels
        while self._commits and (
            len(self._commits) >= self._window
            or sum(self._commits.values()) > MAX_PIXELS
            or any(each.done() for each in self._commits)
        ):
            yield from self._ended_commits()

    def _ended_commits(self) -> Iterator[Row]:
        """Wait for at least one; return all that have finished."""
        for each in ended(self._commits):
            del self._commits[each]
            yield each.result()
