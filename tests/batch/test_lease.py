from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest

from mirnet.batch.lease import Lease, LeaseEntry, LeaseHeld, LeaseLost
from mirnet.batch.ledger import Ledger
from mirnet.config import Settings
from mirnet.errors import StorageError
from mirnet.storage.places import open_store
from mirnet.storage.store import Blob
from tests.batch.samples import enhance_batch, fill, picture


def test_second_is_refused_and_told_by_whom(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    with Lease(Ledger(store), lease_s=30) as first:
        with pytest.raises(LeaseHeld, match=rf"pid \d+ is at work on .*{first.run_id}") as caught:
            Lease(Ledger(store), lease_s=30).__enter__()
        assert caught.value.run_id == first.run_id
    with Lease(Ledger(store), lease_s=30) as second:
        assert second.entry.term == first.entry.term + 1
        assert second.run_id > first.run_id


@pytest.mark.parametrize("skew_s", [-86_400.0, 86_400.0])
def test_skewed_clocks_of_jobs_do_not_matter(
    places: tuple[str, str], skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock of the job that asks is a day off, also against the dates of files in a folder."""
    store = open_store(places[1], Settings())
    now = time.time
    with Lease(Ledger(store), lease_s=1) as first:
        monkeypatch.setattr(time, "time", lambda: now() + skew_s)
        with pytest.raises(LeaseHeld):
            Lease(Ledger(store), lease_s=30).__enter__()
        first.check()
    with Lease(Ledger(store), lease_s=30) as second:
        assert second.run_id > first.run_id


def test_renewed_lease_is_not_stale(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    with Lease(Ledger(store), lease_s=1) as lease:
        time.sleep(3.2)
        lease.check()
        with pytest.raises(LeaseHeld):
            Lease(Ledger(store), lease_s=1).__enter__()


def test_what_was_given_back_allows_no_more_writes(places: tuple[str, str]) -> None:
    with Lease(Ledger(open_store(places[1], Settings())), lease_s=60) as lease:
        lease.check()
    with pytest.raises(LeaseLost, match="it was given back"):
        lease.check()


def test_holder_notices_a_takeover(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    with Lease(Ledger(store), lease_s=0.4) as lease:
        thief = LeaseEntry(term=99, run_id="thief", holder="elsewhere", lease_s=30)
        store.put("lease.json", thief.dump())
        time.sleep(0.7)
        with pytest.raises(LeaseLost, match="taken it over"):
            lease.check()
    assert json.loads(store.get("lease.json").data)["run_id"] == "thief"


def test_an_outage_between_a_renewal_and_its_answer_is_no_takeover(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the answer nor the lease itself can be read: the next renewal replaces an old one."""
    store, write, lost = open_store(places[1], Settings()), Ledger.write_lease, []

    def lose_answer(self: Ledger, data: bytes, *, replaces: str | None) -> str | None:
        version = write(self, data, replaces=replaces)
        if not lost:
            lost.append(version)
            raise StorageError("the store is away")
        return version

    with Lease(Ledger(store), lease_s=3) as lease:
        monkeypatch.setattr(Ledger, "write_lease", lose_answer)
        deadline = time.monotonic() + 30
        while lease.entry.held_s == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
            lease.check()
        assert lost
        assert lease.entry.held_s
        lost.clear()
        while not lost and time.monotonic() < deadline:
            time.sleep(0.05)
    assert json.loads(store.get("lease.json").data)["released"]


def test_a_retry_in_the_same_process_need_not_wait(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt could not give its lease back: the store was away."""
    store = open_store(places[1], Settings())
    first = Lease(Ledger(store), lease_s=30)
    first.__enter__()
    with monkeypatch.context() as patch:

        def away(*_: object, **__: object) -> None:
            raise StorageError("the store is away")

        patch.setattr(type(store), "put", away)
        first.__exit__()
    with Lease(Ledger(store), lease_s=30) as second:
        assert second.entry.term == first.entry.term + 1
        with pytest.raises(LeaseHeld):
            Lease(Ledger(store), lease_s=30).__enter__()


def test_another_thread_does_not_take_what_is_just_being_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is of this process, and not a rest of an earlier attempt."""
    ledger = Ledger(open_store(str(tmp_path), Settings()))

    def meanwhile(_: Ledger, lease: bytes) -> None:
        with pytest.raises(LeaseHeld):
            Lease(ledger, lease_s=30).__enter__()
        assert ledger.read_lease().data == lease

    monkeypatch.setattr(Ledger, "ignored_condition", meanwhile)
    with Lease(ledger, lease_s=30) as lease:
        lease.check()


def test_garbage_in_the_lease_is_one_line(places: tuple[str, str]) -> None:
    fill(places[1], {"lease.json": b"{"})
    with pytest.raises(StorageError, match="is not a lease; delete it"):
        Lease(Ledger(open_store(places[1], Settings())), lease_s=30).__enter__()


def test_terms_go_on_after_the_lease_was_deleted(places: tuple[str, str]) -> None:
    """As the message on a damaged one advises: rows of later runs still count more."""
    source, target = places
    fill(source, {"a.png": picture(1)})
    for number in range(3):
        fill(source, {"a.png": picture(number)})
        assert enhance_batch(source, target).enhanced == 1
    store = open_store(target, Settings())
    store.delete("_mirnet/lease.json")
    fill(source, {"a.png": picture(9)})
    assert enhance_batch(source, target).enhanced == 1
    assert enhance_batch(source, target).skipped == 1, "the row of the last run counts"
    terms = [run_id[:8] for run_id in Ledger.of_target(store).past_runs().names]
    assert terms == [f"{term:08d}" for term in range(1, 6)]


def test_a_lease_that_fell_behind_its_runs_catches_up(places: tuple[str, str]) -> None:
    """It was deleted under an older version. Other names among the runs are no runs."""
    store = open_store(places[1], Settings())
    for run_id in ("00000041-20261129T225327Z-e8d3fd", "99-x", "zzz", "²²²²²²²²-x"):
        store.put(f"runs/{run_id}/summary.json", b"{}")
    behind = LeaseEntry(term=2, run_id="r", holder="h", lease_s=30, released=True)
    store.put("lease.json", behind.dump())
    with Lease(Ledger(store), lease_s=30) as lease:
        assert lease.entry.term == 42


@pytest.mark.parametrize("key", ["runs/99999998-x/summary.json", "lease.json"])
def test_the_record_of_the_last_term_is_named(key: str, places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    last = LeaseEntry(term=10**8 - 2, run_id="r", holder="h", lease_s=30, released=True)
    store.put(key, last.dump())
    place = re.escape(store.address(key.removesuffix("/summary.json")))
    with pytest.raises(StorageError, match=f"^{place}: no term is left after this one"):
        Lease(Ledger(store), lease_s=30).__enter__()


def test_a_proxy_that_changes_etags_is_named(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that compresses responses makes the ETag of a GET weak."""
    store, naps = open_store(places[1], Settings()), []
    with Lease(Ledger(store), lease_s=30):
        pass
    read = Ledger.read_lease

    def weak(self: Ledger) -> Blob:
        blob = read(self)
        return replace(blob, version="W/" + blob.version)

    def sleep(seconds: float) -> None:
        naps.append(seconds)

    def clock() -> float:
        return sum(naps)

    monkeypatch.setattr(Ledger, "read_lease", weak)
    with pytest.raises(StorageError, match="different ETags of it to HEAD and GET") as no:
        Lease(Ledger(store), lease_s=30, clock=clock, sleep=sleep).__enter__()
    assert 0 < sum(naps) <= 60
    assert "lease.json" in str(no.value)
