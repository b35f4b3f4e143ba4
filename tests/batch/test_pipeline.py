"""Overlap and its bounds, seen from a job that counts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from mirnet.batch import pipeline
from mirnet.batch.image_job import Downloaded, Enhanced, Fetched
from mirnet.batch.image_work import Decoded
from mirnet.batch.manifest import Row
from mirnet.batch.plan import WorkItem
from mirnet.errors import StorageError
from mirnet.images import Image
from mirnet.storage.store import ObjectInfo


def items(*sizes: int) -> list[WorkItem]:
    return [WorkItem(ObjectInfo(f"{n}", size, "v", 0.0), f"{n}") for n, size in enumerate(sizes)]


@dataclass
class CountingJob:
    """Bytes held before decoding, and pixels from decoding to the end of commit.

    An image has as many pixels as its file has bytes, in one row.
    """

    pause_s: float = 0.0
    fail_at: str | None = None
    mates: int = 1
    lock: Any = field(default_factory=threading.Lock)
    files: dict[str, int] = field(default_factory=dict)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    most_files: int = 0
    most_pixels: int = 0
    most_images: int = 0
    applied: list[str] = field(default_factory=list)
    batches: list[tuple[int, int]] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def download(self, item: WorkItem) -> Downloaded:
        with self.lock:
            self.files[item.info.key] = item.info.size
            self.most_files = max(self.most_files, sum(self.files.values()))
            self.most_images = max(self.most_images, len(self.files) + len(self.before))
        time.sleep(self.pause_s)
        return Downloaded(item, b"", "v", None, item.info.size, 0.0)

    def read(self, got: Downloaded) -> Fetched | Row:
        key, size = got.item.info.key, got.item.info.size
        with self.lock:
            del self.files[key]
            self.before[key] = size
            self.most_pixels = max(self.most_pixels, self.pixels())
        time.sleep(self.pause_s)
        if size == 0:
            with self.lock:
                del self.before[key]
            return Row(key, "v", 0, "quarantined", "r", "d", "m")
        image = Image(np.broadcast_to(np.uint8(0), (1, size, 3)))
        return Fetched(got, Decoded(image, None, 0.0))  # type: ignore[arg-type]

    def batch_size(self, fetched: Fetched) -> int:
        return self.mates if fetched.got.item.info.size <= 10 else 1

    def apply(self, batch: list[Fetched]) -> list[Enhanced]:
        self.threads.add(threading.get_ident())
        self.batches.append((batch[0].got.item.info.size, len(batch)))
        assert len({fetched.got.item.info.size for fetched in batch}) == 1
        for fetched in batch:
            key = fetched.got.item.info.key
            self.applied.append(key)
            with self.lock:
                self.after[key] = self.before.pop(key)
                self.most_pixels = max(self.most_pixels, self.pixels())
        time.sleep(self.pause_s)
        return [Enhanced(one.got, one.decoded, one.decoded.image) for one in batch]

    def commit(self, enhanced: Enhanced) -> Row:
        key = enhanced.got.item.info.key
        if key == self.fail_at:
            raise StorageError("disk full")
        time.sleep(self.pause_s)
        with self.lock:
            del self.after[key]
        return Row(key, "v", 1, "enhanced", "r", "d", "m")

    def pixels(self) -> int:
        return sum(self.before.values()) + sum(self.after.values())


def run(job: CountingJob, todo: list[WorkItem], threads: int = 3) -> list[str]:
    return [row.input_key for row in pipeline.process(todo, job, num_threads=threads)]  # type: ignore[arg-type]


def test_each_item_once_and_the_model_in_order_in_one_thread() -> None:
    job = CountingJob(pause_s=0.001)
    keys = run(job, items(*([1, 1, 0] * 20)))
    assert sorted(keys, key=int) == [str(n) for n in range(60)]
    assert job.applied == [str(n) for n in range(60) if n % 3 != 2]
    assert job.threads == {threading.get_ident()}
    assert job.most_images <= 6


def test_large_files_go_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "MAX_FILE_BYTES", 100)
    job = CountingJob(pause_s=0.002)
    keys = run(job, items(40, 40, 40, 500, 500, 10, 10, 90, 40, 60))
    assert len(keys) == 10
    assert job.most_files <= 500
    small = CountingJob(pause_s=0.002)
    run(small, items(*[40] * 20))
    assert 40 < small.most_files <= 80


def test_decoded_pixels_are_bounded_whatever_the_files_weigh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline, "MAX_PIXELS", 100)
    job = CountingJob(pause_s=0.002)
    sizes = [40, 40, 40, 500, 500, 10, 10, 90, 40, 60]
    assert len(run(job, items(*sizes))) == len(sizes)
    # the model has taken one out of the queue, and the next ones may be decoded meanwhile
    assert job.most_pixels <= 600
    small = CountingJob(pause_s=0.002)
    run(small, items(*[40] * 20))
    assert 40 < small.most_pixels <= 120


def test_pictures_of_one_size_go_together_and_the_last_ones_too() -> None:
    job = CountingJob(mates=4)
    sizes = [5, 6, 20, 5, 5, 6, 5, 20, 5, 0, 6]
    keys = run(job, items(*sizes))
    assert sorted(keys, key=int) == [str(n) for n in range(len(sizes))]
    assert sorted(job.batches) == [(5, 1), (5, 4), (6, 3), (20, 1), (20, 1)]


@dataclass
class MeetingJob(CountingJob):
    """Its first image goes on only when others are on their way in the other steps."""

    second_downloads: threading.Event = field(default_factory=threading.Event)
    second_is_applied: threading.Event = field(default_factory=threading.Event)

    def download(self, item: WorkItem) -> Downloaded:
        if item.info.key == "1":
            self.second_downloads.set()
        return super().download(item)

    def apply(self, batch: list[Fetched]) -> list[Enhanced]:
        if batch[0].got.item.info.key == "0":
            assert self.second_downloads.wait(30), "nothing is downloaded while the model works"
        else:
            self.second_is_applied.set()
        return super().apply(batch)

    def commit(self, enhanced: Enhanced) -> Row:
        if enhanced.got.item.info.key == "0":
            assert self.second_is_applied.wait(30), "the model waits for a commit"
        return super().commit(enhanced)


def test_steps_overlap() -> None:
    assert sorted(run(MeetingJob(), items(1, 1, 1))) == ["0", "1", "2"]


def test_what_stops_a_run_stops_it_without_fetching_the_rest() -> None:
    job = CountingJob(fail_at="5")
    fetched = iter(items(*[1] * 1000))
    with pytest.raises(StorageError, match="disk full"):
        run(job, fetched)  # type: ignore[arg-type]
    assert len(job.applied) < 30
    assert threading.active_count() < 20


def test_nothing_to_do() -> None:
    assert run(CountingJob(), []) == []
