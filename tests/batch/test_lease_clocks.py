"""Clocks that are set, dates in the future, leases that nobody wrote: no living holder is robbed,
and no dead one keeps the target for ever.
"""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from mirnet.batch.lease import Lease, LeaseEntry, LeaseHeld
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.liveness import this_process
from mirnet.signals import termination_as_exception
from mirnet.storage.places import open_store
from mirnet.storage.store import Head, Store
from tests.batch.samples import enhance_batch, fill

HOLDER = LeaseEntry(term=7, run_id="theirs", holder="elsewhere pid 1", lease_s=60.0)


class Time:
    """A monotonic clock; ``during`` is called in every sleep."""

    def __init__(self, during: Callable[[], object] = lambda: None, *, pace: float = 1.0) -> None:
        self.now = 100.0
        self.naps = 0
        self._during, self._pace = during, pace

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps += 1
        self.now += seconds * self._pace
        self._during()


def acquire(store: Store, time: Time) -> Lease:
    return Lease(Ledger(store), lease_s=60, clock=time.clock, sleep=time.sleep)


@pytest.fixture
def store(places: tuple[str, str]) -> Store:
    store = open_store(places[1], Settings())
    store.put("lease.json", HOLDER.dump())
    return store


@pytest.fixture
def dated(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Makes the store's clock wrong by so many seconds against the dates of its objects."""
    real = Ledger.lease_head

    def set_clock(off_s: float) -> None:
        def head(self: Ledger) -> Head | None:
            found = real(self)
            return found and replace(found, age_s=found.age_s + off_s)

        monkeypatch.setattr(Ledger, "lease_head", head)

    return set_clock


CLOCKS = pytest.mark.parametrize("off_s", [150.0, 86_400.0, -150.0, -86_400.0])


@CLOCKS
def test_a_clock_that_was_set_does_not_take_the_lease_of_a_living_holder(
    off_s: float, store: Store, dated: Callable[[float], None]
) -> None:
    dated(off_s)
    renewals = iter(range(1, 100))
    time = Time(lambda: store.put("lease.json", replace(HOLDER, held_s=next(renewals)).dump()))
    with pytest.raises(LeaseHeld, match="elsewhere pid 1 is at work"):
        acquire(store, time).__enter__()
    assert json.loads(store.get("lease.json").data)["run_id"] == "theirs"


@CLOCKS
def test_a_dead_holder_keeps_it_no_longer_than_its_lease(
    off_s: float, store: Store, dated: Callable[[float], None]
) -> None:
    dated(off_s)
    time = Time()
    with acquire(store, time) as lease:
        assert lease.entry.term == 8
    assert 60 <= time.now - 100 <= 75


def test_a_young_lease_is_refused_without_waiting(store: Store) -> None:
    time = Time()
    with pytest.raises(LeaseHeld):
        acquire(store, time).__enter__()
    assert time.naps == 0


def test_an_observer_that_was_frozen_looks_again(
    store: Store, dated: Callable[[float], None]
) -> None:
    """The holder may have been frozen with it, and has had no time to renew."""
    dated(150)
    time = Time(pace=100)
    with acquire(store, time):
        assert time.naps >= 4


def test_a_lease_released_while_it_is_watched_is_taken(
    store: Store, dated: Callable[[float], None]
) -> None:
    dated(150)
    time = Time(lambda: store.put("lease.json", replace(HOLDER, released=True).dump()))
    with acquire(store, time) as lease:
        assert lease.entry.term == 8
    assert time.now - 100 < 60


def test_a_renewal_with_the_same_content_is_seen(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ETag of S3 is that of the content; holders of older versions write the same each time."""
    ages = iter([200.0, 207.0, 214.0, 1.0])
    monkeypatch.setattr(
        Ledger, "lease_head", lambda self: replace(self.store.head("lease.json"), age_s=next(ages))
    )
    with pytest.raises(LeaseHeld):
        acquire(store, Time()).__enter__()


def test_a_stop_is_heard_while_watching(store: Store, dated: Callable[[float], None]) -> None:
    dated(150)
    time = Time(lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit), termination_as_exception():
        acquire(store, time).__enter__()
    assert time.naps == 1
    assert json.loads(store.get("lease.json").data)["run_id"] == "theirs"


@pytest.mark.parametrize("step_s", [-3600.0, -2.0, 2.0, 3600.0])
def test_a_living_process_of_this_machine_is_not_taken_for_dead(
    step_s: float, store: Store
) -> None:
    """The start of a process by the wall clock changes when the clock is set."""
    mine = this_process()
    with acquire(store_of_own := store.child("own"), Time()) as lease:
        living = replace(lease.entry, process="another", started=lease.entry.started + step_s)
    assert (living.pid, living.ticks) == (os.getpid(), mine.ticks)
    for entry in (living, replace(living, ticks=0)):  # of this version, of an older one
        store_of_own.put("lease.json", entry.dump())
        with pytest.raises(LeaseHeld):
            acquire(store_of_own, Time()).__enter__()


@pytest.mark.parametrize("lease_s", [7200.0, 1e300])
def test_a_lease_of_more_than_an_hour_counts_as_an_hour(
    lease_s: float, store: Store, dated: Callable[[float], None]
) -> None:
    """Version 0.1 had no bound on ``MIRNET_LEASE_S``."""
    old = {"term": 7, "run_id": "theirs", "holder": "elsewhere pid 1", "lease_s": lease_s}
    store.put("lease.json", json.dumps(old).encode())
    with pytest.raises(LeaseHeld, match=r"free in 3[56]\d\d s"):
        acquire(store, Time()).__enter__()
    dated(4000)
    time = Time()
    with acquire(store, time) as lease:
        assert lease.entry.term == 8
    assert 3600 <= time.now - 100 <= 3620


def test_a_released_lease_of_more_than_an_hour_is_free(store: Store) -> None:
    old = {"term": 7, "run_id": "r", "holder": "h", "lease_s": 86_400.0, "released": True}
    store.put("lease.json", json.dumps(old).encode())
    time = Time()
    with acquire(store, time) as lease:
        assert lease.entry.term == 8
    assert time.naps == 0


def poisoned(**values: object) -> bytes:
    return json.dumps(asdict(HOLDER) | values).encode()


POISON = {
    "eternal": poisoned(lease_s=math.inf),
    "not a number": poisoned(lease_s=math.nan),
    "stale at once": poisoned(lease_s=-math.inf),
    "negative": poisoned(lease_s=-1.0),
    "nothing": poisoned(lease_s=0),
    "held for ever": poisoned(held_s=math.inf),
    "held for no number": poisoned(held_s=math.nan),
    "a start at no time": poisoned(started=math.nan),
    "a number as text": poisoned(lease_s="60"),
    "a truth as text": poisoned(released="false"),
    "null": poisoned(process=None),
    "a list": poisoned(holder=["a"]),
    "the last term": poisoned(term=10**8),
    "25 digits": poisoned(term=10**25),
    "no term": poisoned(term=True),
    "a large pid": b'{"term": 1e400}',
    "a missing field": b'{"term": 1}',
    "lines": poisoned(holder="a\nb"),
    "an escape": poisoned(run_id="\x1b[2J"),
    "deep": b'{"term":' * 100_000,
    "an array": b"[]",
    "no text": b"\xff\xfe",
    "nothing at all": b"",
    "large": poisoned(holder="x" * 10**6),
}


@pytest.mark.parametrize("data", POISON.values(), ids=POISON.keys())
def test_what_is_no_lease_is_named_and_left(data: bytes, tmp_path: Path) -> None:
    fill(str(tmp_path / "in"), {"a.png": b""})
    store = open_store(str(tmp_path / "out"), Settings())
    store.put("_mirnet/lease.json", data)
    with pytest.raises(StorageError, match=r"_mirnet/lease\.json is not a lease; delete it"):
        enhance_batch(str(tmp_path / "in"), str(tmp_path / "out"))
    assert store.get("_mirnet/lease.json").data == data
