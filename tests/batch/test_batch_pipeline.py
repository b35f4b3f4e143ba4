"""Overlap and its bounds, seen from a job that counts."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from mirnet.batch import pipeline
from mirnet.batch.plan import WorkItem
from mirnet.batch.process import Enhanced, Fetched
from mirnet.batch.records import Row
from mirnet.batch.storage import ObjectInfo
from mirnet.errors import StorageError


def items(*sizes: int) -> list[WorkItem]:
    return [WorkItem(ObjectInfo(f"{n}", size, "v", 0.0), f"{n}") for n, size in enumerate(sizes)]


@dataclass
class CountingJob:
    """Bytes held between fetch and the model, and between the model and the end of commit."""

    pause_s: float = 0.0
    fail_at: str | None = None
    lock: Any = field(default_factory=threading.Lock)
    before: dict[str, int] = field(default_factory=dict)
    after: dict[str, int] = field(default_factory=dict)
    most_before: int = 0
    most_after: int = 0
    most_images: int = 0
    applied: list[str] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)

    def fetch(self, item: WorkItem) -> Fetched | Row:
        with self.lock:
            self.before[item.info.key] = item.info.size
            self.most_before = max(self.most_before, sum(self.before.values()))
            self.most_images = max(self.most_images, len(self.before))
        time.sleep(self.pause_s)
        if item.info.size == 0:
            with self.lock:
                del self.before[item.info.key]
            return Row(item.info.key, "v", 0, "quarantined", "r", "d", "m")
        return Fetched(item, None, None, "v", None, 0.0)  # type: ignore[arg-type]

    def apply(self, fetched: Fetched) -> Enhanced:
        key = fetched.item.info.key
        self.threads.add(threading.get_ident())
        self.applied.append(key)
        with self.lock:
            self.after[key] = self.before.pop(key)
            self.most_after = max(self.most_after, sum(self.after.values()))
        time.sleep(self.pause_s)
        return Enhanced(fetched, None, 0.0)  # type: ignore[arg-type]

    def commit(self, enhanced: Enhanced) -> Row:
        key = enhanced.fetched.item.info.key
        if key == self.fail_at:
            raise StorageError("disk full")
        time.sleep(self.pause_s)
        with self.lock:
            del self.after[key]
        return Row(key, "v", 1, "enhanced", "r", "d", "m")


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
    run(job, items(40, 40, 40, 500, 500, 10, 10, 90, 40, 60))
    assert job.most_before <= 500
    assert job.most_after <= 540, "the next may be enhanced while one is written"
    small = CountingJob(pause_s=0.002)
    run(small, items(*[40] * 20))
    assert 40 < small.most_before <= 80


def test_steps_overlap() -> None:
    job = CountingJob(pause_s=0.02)
    begun = time.perf_counter()
    run(job, items(*[1] * 30))
    one_after_another = 30 * 3 * 0.02
    assert job.most_images > 1
    assert time.perf_counter() - begun < one_after_another


def test_what_stops_a_run_stops_it_without_fetching_the_rest() -> None:
    job = CountingJob(fail_at="5")
    fetched = iter(items(*[1] * 1000))
    with pytest.raises(StorageError, match="disk full"):
        run(job, fetched)  # type: ignore[arg-type]
    assert len(job.applied) < 30
    assert threading.active_count() < 20


def test_nothing_to_do() -> None:
    assert run(CountingJob(), []) == []
