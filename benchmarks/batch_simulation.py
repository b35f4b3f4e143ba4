"""Ten million made-up keys through the real plan, lease, commit and record code, with kills,
sleepers that wake up after a takeover, and jobs that race; then the invariants are checked.

    python -m benchmarks.batch_simulation --keys 10000000

Only the store (in memory, with a clock of its own) and the images (constants) are made up.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

import numpy as np

from mirnet.batch import image_job, image_work, run_config
from mirnet.batch.batch_paths import BatchPaths
from mirnet.batch.digests import Digests
from mirnet.batch.engine import open_engine
from mirnet.batch.image_job import Downloaded, Enhanced, Fetched, ImageJob
from mirnet.batch.image_work import ImageWork
from mirnet.batch.inflight import Alone, Inflight
from mirnet.batch.lease import Lease, LeaseHeld
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row
from mirnet.batch.plan import BatchPlan, Planner, WorkItem
from mirnet.batch.provenance import from_metadata, source_digest
from mirnet.batch.run_record import RunRecord
from mirnet.images import Image
from mirnet.images.stats import Measures
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.places import Place
from mirnet.storage.store import Blob, Head, ObjectInfo, ObjectMissing, Store

LEASE_S = 3600.0
SHARD = 200_000
NIGHTS = 2
PART = 4000
PICTURE = Image(np.zeros((1, 1, 3), np.uint8))
MEASURES = Measures(0.1, 0.2, 0.0, 0.01, 0.3)


class Killed(Exception):
    """Raised by every call of a dead process, so that nothing it does has an effect."""


@dataclass
class Disk:
    """What all processes see."""

    objects: dict[str, tuple[bytes, int, bytes, float]] = field(default_factory=dict)
    writes: Counter[str] = field(default_factory=Counter)
    clock: float = 0.0
    version: int = 0

    def sleep(self, seconds: float) -> None:
        self.clock += seconds


class MemoryStore(Store):
    """One process's view of the disk."""

    def __init__(self, disk: Disk, life: dict[str, bool], prefix: str = "") -> None:
        self.uri = f"memory/{prefix}"
        self._disk, self._life, self._prefix = disk, life, prefix

    def _alive(self) -> Disk:
        if not self._life["alive"]:
            raise Killed
        return self._disk

    def check(self) -> None:
        self._alive()

    def address(self, key: str) -> str:
        return self._prefix + key

    def child(self, name: str) -> Store:
        return MemoryStore(self._disk, self._life, f"{self._prefix}{name}/")

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        start = self._prefix + prefix
        for key, (data, version, _, modified) in list(self._alive().objects.items()):
            if key.startswith(start):
                yield ObjectInfo(key[len(self._prefix) :], len(data), str(version), modified)

    def head(self, key: str) -> Head | None:
        found = self._alive().objects.get(self._prefix + key)
        if found is None:
            return None
        data, version, metadata, modified = found
        known = json.loads(metadata) if metadata else {}
        return Head(len(data), str(version), known, self._disk.clock - modified)

    def get(self, key: str) -> Blob:
        found = self._alive().objects.get(self._prefix + key)
        if found is None:
            raise ObjectMissing(key)
        return Blob(found[0], str(found[1]))

    def read_into(self, key: str, file: IO[bytes], *, version: str | None = None) -> None:
        raise NotImplementedError("no picture of the simulation is bad")

    def put(
        self,
        key: str,
        data: bytes,
        *,
        content_type: str = "",  # noqa: ARG002
        metadata: Mapping[str, str] | None = None,
        replaces: str | None = None,
        absent: bool = False,
    ) -> str | None:
        disk, full = self._alive(), self._prefix + key
        found = disk.objects.get(full)
        if (absent and found) or (replaces and (not found or str(found[1]) != replaces)):
            return None
        disk.version += 1
        packed = json.dumps(dict(metadata)).encode() if metadata else b""
        disk.objects[full] = (data, disk.version, packed, disk.clock)
        if metadata:
            disk.writes[f"{key} {metadata['mirnet-input-version']}"] += 1
        return str(disk.version)

    def delete(self, key: str) -> None:
        self._alive().objects.pop(self._prefix + key, None)

    def copy_from(
        self,
        source: Store,
        key: str,
        target_key: str,
        *,
        metadata: Mapping[str, str],
        version: str | None = None,
    ) -> None:
        raise NotImplementedError("no picture of the simulation is bad")


class Inputs(MemoryStore):
    """Keys that are computed, not stored; one in a thousand changes from night to night."""

    def __init__(self, disk: Disk, life: dict[str, bool], *, shard: int, num: int) -> None:
        super().__init__(disk, life, "in/")
        self.shard, self.num, self.night = shard, num, 0

    def version(self, number: int) -> str:
        changes = sum((number * 7919 + night) % 1000 == 0 for night in range(1, self.night + 1))
        return f"v{changes}"

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:  # noqa: ARG002
        for number in range(self.num):
            yield ObjectInfo(self.key(number), 1, self.version(number), 0.0)

    def key(self, number: int) -> str:
        return f"{self.shard:03d}/{number:07d}.png"

    def get(self, key: str) -> Blob:
        self._alive()
        return Blob(b"x", self.version(int(key[4:11])))


def work(view: MemoryStore, inputs: Inputs, params: EnhanceParams) -> Iterator[str]:
    """What run_batch does, in steps that can be interleaved. The guard never notices anything:
    the worst case of a process that slept."""
    model = ModelRef("mirnet", "1")
    planner = Planner(
        model=model,
        params=params,
        digests=Digests.of(params),
        source_digest=source_digest(inputs),
    )
    target = view.child("out")
    ledger = Ledger.of_target(target)
    batch = BatchPaths(Place(inputs), target, ledger, planner, params)
    disk = view._disk
    with (
        Lease(ledger, lease_s=LEASE_S, clock=lambda: disk.clock, sleep=disk.sleep) as lease,
        BatchPlan() as plan,
    ):
        yield lease.run_id
        past, folder = batch.fill(plan, limit=None), ledger.run(lease.run_id)
        run_config.choose_run_config(
            past,
            folder,
            source=inputs,
            named=inputs.uri,
            plan=plan,
            model=model,
            digests=planner.digests,
            max_pixels=None,
        )
        job = ImageJob(
            source=inputs,
            target=target,
            quarantine=batch.quarantine,
            model=model,
            params=params,
            digests=planner.digests,
            run_id=lease.run_id,
            work=ImageWork(params, open_engine(lambda image: image, params)),
            guard=lambda: None,
        )
        record = RunRecord(folder, format="parquet")
        inflight = Inflight(folder, block=128)
        with contextlib.closing(
            inflight.rows(
                plan,
                lambda items: (fate(job, item) for item in items),
                lambda items, alone: (_fate_alone(job, item, alone) for item in items),
            )
        ) as rows:
            for number, row in enumerate(rows):
                record.add(row)
                if number % PART == PART - 1:
                    record.flush()
                yield "row"
        record.finish({"counts": {}})


def fate(job: ImageJob, item: WorkItem) -> Row:
    """What the pipeline does with one input."""
    state: Downloaded | Fetched | Enhanced | Row = job.download(item)
    if isinstance(state, Downloaded):
        state = job.read(state)
    if isinstance(state, Fetched):
        (state,) = job.apply([state])
    return job.commit(state) if isinstance(state, Enhanced) else state


def _fate_alone(job: ImageJob, item: WorkItem, alone: Alone) -> Row:
    with alone(item):
        return fate(job, item)


class World:
    """Processes over one shard."""

    def __init__(self, shard: int, num: int) -> None:
        self.chance = random.Random(shard)
        self.disk, self.shard, self.num = Disk(), shard, num
        self.night = 0
        self.events: Counter[str] = Counter()
        self.run_ids: list[str] = []
        self.sleepers: list[tuple[Iterator[str], dict[str, bool]]] = []

    def start(self) -> tuple[Iterator[str], dict[str, bool]] | None:
        life = {"alive": True}
        inputs = Inputs(self.disk, life, shard=self.shard, num=self.num)
        inputs.night = self.night
        steps = work(MemoryStore(self.disk, life), inputs, EnhanceParams())
        try:
            run_id = next(steps)
        except LeaseHeld:
            self.events["held off"] += 1
            return None
        assert not self.run_ids or run_id > self.run_ids[-1], "terms grow"
        self.run_ids.append(run_id)
        self.events["started"] += 1
        return steps, life

    def kill(self, steps: Iterator[str], life: dict[str, bool]) -> None:
        life["alive"] = False
        with contextlib.suppress(Killed):
            steps.close()  # type: ignore[attr-defined]
        self.disk.clock += 2 * LEASE_S

    def run_night(self) -> None:
        budget = 2
        while True:
            started = self.start()
            assert started, "nobody is at work"
            steps, life = started
            assert self.start() is None, "one job a target"
            if budget:
                budget -= 1
                self._advance(steps, self.chance.randrange(max(1, self.num // 3)))
                self._wake_sleepers()
                if self.chance.random() < 0.6:
                    self.kill(steps, life)
                    self.events["killed"] += 1
                else:
                    self.sleepers.append((steps, life))
                    self.disk.clock += 2 * LEASE_S
                    self.events["slept through its lease"] += 1
                continue
            self._advance(steps, None)
            self._wake_sleepers()
            return

    def _wake_sleepers(self) -> None:
        """They commit some more, not knowing better, and then die."""
        for steps, life in self.sleepers[:-1] if self.chance.random() < 0.5 else self.sleepers:
            if life["alive"]:
                self._advance(steps, self.chance.randrange(3 * PART))
                self.kill(steps, life)
                self.events["woke up and went on"] += 1

    def _advance(self, steps: Iterator[str], most: int | None) -> None:
        for done, _ in enumerate(steps):
            if most is not None and done >= most:
                return

    def check(self) -> None:
        """The invariants."""
        inputs = Inputs(self.disk, {"alive": True}, shard=self.shard, num=self.num)
        inputs.night = self.night
        wanted = {info.key: info.version for info in inputs.list()}
        source = source_digest(inputs)
        target = MemoryStore(self.disk, {"alive": True}, "out/")
        outputs = {i.key for i in target.list() if not i.key.startswith("_mirnet/")}
        assert outputs == set(wanted), "each input has exactly one output"
        for key, version in wanted.items():
            head = target.head(key)
            origin = head and from_metadata(head.metadata)
            assert origin and origin.is_of(key, source) and origin.row.input_version == version
        final = {row.input_key: row for row in Ledger.of_target(target).past_runs().rows()}
        assert {key: row.input_version for key, row in final.items()} == wanted
        assert {row.status for row in final.values()} == {"enhanced"}
        assert set(self.disk.writes.values()) == {1}, "no version of an input was written twice"


def simulate(task: tuple[int, int]) -> Counter[str]:
    """One shard: some nights, each with kills and sleepers; checked at the end."""
    shard, num = task
    image_work.decode = lambda _data, **_: PICTURE  # type: ignore[attr-defined]
    for module in (image_job, run_config):
        module.read_size = lambda _data, **_: (1, 1)  # type: ignore[attr-defined]
    image_work.encode = lambda _image, **_: b"y"  # type: ignore[attr-defined]
    image_work.measure = lambda *_, **__: MEASURES  # type: ignore[attr-defined]
    world = World(shard, num)
    for night in range(NIGHTS):
        world.night = night
        world.run_night()
    world.check()
    world.events["keys"] = num
    world.events["writes"] = world.disk.writes.total()
    return world.events


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--first-shard", type=int, default=0, help="to go on, or to run in parts")
    options = parser.parse_args()
    begun = time.perf_counter()
    num_shards = -(-options.keys // SHARD)
    tasks = [
        (options.first_shard + n, min(SHARD, options.keys - n * SHARD)) for n in range(num_shards)
    ]
    total: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(options.processes, maxtasksperchild=4) as pool:
        for events in pool.imap_unordered(simulate, tasks):
            total += events
            seconds = time.perf_counter() - begun
            print(f"{total['keys']:>10,} keys sound, {seconds:.0f} s", flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "shards": f"{tasks[0][0]} to {tasks[-1][0]}",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "resident_mib_peak_of_a_process": round(used.ru_maxrss / 1024),
        "invariants": "hold",
    }
    print(json.dumps(dict(total) | figures))


if __name__ == "__main__":
    main()
