"""A source and a target of the soak: inputs arrive, change and vanish while jobs are at work, and
the store has faults. In the end all of it is looked at.
"""

from __future__ import annotations

import hashlib
import io
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image

from benchmarks.soak_job import MODEL, PARAMS, Double
from mirnet.atomic import is_part_name
from mirnet.batch.ledger import Ledger, is_ledger_key
from mirnet.batch.manifest import Row
from mirnet.batch.provenance import from_metadata
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.images import decode
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.store import Store
from tests.fault_proxy import FaultProxy

SIDE = 24
FAULTS = ("throttle", "500", "503", "reset", "lost-answer", "cut", "timeout", "slow")


@dataclass
class World:
    """One target. ``settings`` reach it without faults, ``proxy`` spoils what the jobs ask."""

    name: str
    base: str
    settings: Settings
    variables: dict[str, str] = field(default_factory=dict)
    proxy: FaultProxy | None = None
    present: list[str] = field(default_factory=list)
    number: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def source(self) -> str:
        return f"{self.base}/source"

    @property
    def target(self) -> str:
        return f"{self.base}/target"

    def settings_of_job(self) -> Settings:
        if self.proxy is None:
            return self.settings
        return self.settings.model_copy(update={"s3_endpoint_url": self.proxy.url})

    def arrive(self, number: int) -> None:
        """New inputs."""
        for _ in range(number):
            key = f"{self.number % 3}/{self.number:05d}.png"
            self._write(key)
            self.present.append(key)
        self.counts["inputs"] += number

    def change(self, chance: random.Random) -> None:
        """An input gets other content."""
        self._write(chance.choice(self.present))
        self.counts["inputs changed"] += 1

    def vanish(self, chance: random.Random) -> None:
        """An input is deleted; its output stays."""
        key = self.present.pop(chance.randrange(len(self.present)))
        open_store(self.source, self.settings).delete(key)
        self.counts["inputs vanished"] += 1

    def break_store(self, chance: random.Random) -> str:
        """Other faults from now on; in words."""
        if self.proxy is None:
            return "none"
        self.proxy.fault, self.proxy.rate = chance.choice(FAULTS), chance.choice([0.0, 0.05, 0.2])
        return f"{self.proxy.fault} {self.proxy.rate:.0%}"

    def _write(self, key: str) -> None:
        self.number += 1
        open_store(self.source, self.settings).put(key, picture(self.number))

    def calm_run(self) -> EnhanceResult:
        """Without faults, in this process."""
        return run_batch(
            self.source,
            self.target,
            enhance=Double(),
            model=MODEL,
            params=PARAMS,
            settings=self.settings,
        )


def picture(seed: int) -> bytes:
    """A dark PNG, another one for each seed."""
    pixels = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def broken_in(world: World) -> Iterator[str]:
    """After all jobs have ended: a calm run, and what is not as it should be then."""
    first, second = world.calm_run(), world.calm_run()
    for result in (first, second):
        if result.held_by is not None:
            yield f"the lease of an ended job is held: {result.held_by}"
            return
    if first.failed or second.failed:
        yield f"a calm run failed on {first.failed or second.failed} inputs"
    if second.enhanced or second.skipped != second.planned:
        yield f"the calm run left {second.planned - second.skipped} inputs to the next one"
    store = open_store(world.target, world.settings)
    rows = list(Ledger.of_target(store).past_runs().rows())
    yield from _broken_rows(rows)
    yield from _broken_outputs(world, store, {row.input_key: row for row in rows})
    yield from _left_over(store)


def _broken_rows(rows: list[Row]) -> Iterator[str]:
    by_run: dict[tuple[str, str], Row] = {}
    for row in rows:
        # parts that could not be deleted lie beside their manifest
        if by_run.setdefault((row.run_id, row.input_key), row) != row:
            yield f"{row.input_key}: two rows in run {row.run_id}"


def _broken_outputs(world: World, store: Store, final: dict[str, Row]) -> Iterator[str]:
    source = open_store(world.source, world.settings)
    inputs = {info.key: info.version for info in source.list()}
    outputs = {info.key for info in store.list() if not is_ledger_key(info.key)}
    if set(inputs) != set(world.present):
        yield "the inputs are not those that were written"
    for key, version in inputs.items():
        row = final.get(key)
        if row is None or row.status != "enhanced" or row.input_version != version:
            yield f"{key}: its final row is {row}"
        elif row.output_key != key or key not in outputs:
            yield f"{key}: enhanced, and without output"
        else:
            yield from _broken_bytes(key, source.get(key).data, store.get(key).data, row)
    world.counts["outputs"] = len(outputs)
    for key in sorted(outputs - set(inputs)):
        yield from _broken_orphan(world, key, store, final.get(key))


def _broken_bytes(key: str, before: bytes, after: bytes, row: Row) -> Iterator[str]:
    if hashlib.sha256(after).hexdigest() != row.output_digest:
        yield f"{key}: the output has another digest than its final row"
    elif not _same_pixels(before, after, name=key):
        yield f"{key}: the output is not that of its input"


def _same_pixels(before: bytes, after: bytes, *, name: str) -> bool:
    wanted = Double()(decode(before, name=name)).pixels
    return bool(np.array_equal(decode(after, name=name).pixels, wanted))


def _broken_orphan(world: World, key: str, store: Store, row: Row | None) -> Iterator[str]:
    """An output of an input that is gone: a job may have been killed before it wrote the row, and
    no later one looks at it. Its own record has to be right.
    """
    blob = store.get(key)
    digest = hashlib.sha256(blob.data).hexdigest()
    if row is not None and row.output_digest == digest:
        return
    head = store.head(key)
    origin = head and from_metadata(head.metadata)
    if origin and origin.row.input_key == key and origin.row.output_digest == digest:
        world.counts["outputs of vanished inputs by their own record only"] += 1
    else:
        yield f"{key}: an output without a row and without a record of its own"


def _left_over(store: Store) -> Iterator[str]:
    if not store.uri.startswith("s3://"):
        for path in Path(store.uri).rglob("*"):
            if is_part_name(path.name):
                yield f"{path}: a temporary file"
    ledger = Ledger.of_target(store)
    if b'"released": true' not in ledger.read_lease().data:
        yield "the lease was not given back"
