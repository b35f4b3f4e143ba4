"""SIGTERM, work that no longer gets on, and a holder that has been there for too long."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from mirnet.batch.inflight import suspects
from mirnet.batch.lease import Lease, LeaseEntry, LeaseHeld, LeaseLost
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.signals import advance, termination_as_exception
from mirnet.storage.places import open_store
from tests.batch.child import CONTEXT, start
from tests.batch.samples import MODEL, double, enhance_batch as enhance, fill, picture
from tests.batch.test_kills import PICTURES, assert_sound, when_free


def lease_of(target: str) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(open_store(target, Settings()).get("_mirnet/lease.json").data)
    return told


@pytest.mark.parametrize(
    "num_stops", [3, pytest.param(25, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_sigterm_at_random_moments(
    num_stops: int, places: tuple[str, str], variables: dict[str, str]
) -> None:
    """Each job ends soon, and not one leaves a lease behind."""
    source, target = places
    fill(source, PICTURES)
    chance = random.Random(num_stops)
    stopped = 0
    for number in range(num_stops * 6):
        if stopped == num_stops:
            break
        fill(source, {f"late/{number}.png": picture(100 + number, side=24)})
        ready = CONTEXT.Event()
        child = start(
            source,
            target,
            settings={"lease_s": 300.0, "flush_s": 0.1},
            variables=variables,
            seconds_per_image=0.1,
            ready=ready,
        )
        assert ready.wait(timeout=60)  # however slow the start, each signal meets the job
        child.join(timeout=chance.uniform(0.02, 1.5))
        child.terminate()
        child.join(timeout=60)
        # by the signal itself: it came after the last safe point
        assert child.exitcode in (0, 143, -signal.SIGTERM)
        stopped += child.exitcode == 143
        # nobody has to wait for 300 s, on another machine neither
        if open_store(target, Settings()).head("_mirnet/lease.json") is not None:
            assert lease_of(target)["released"]
        assert when_free_at_once(source, target)
    assert stopped == num_stops
    result = when_free(source, target)
    assert result.planned == result.enhanced + result.skipped > len(PICTURES)
    assert_sound(source, target)


def when_free_at_once(source: str, target: str) -> bool:
    result = run_batch(
        source,
        target,
        enhance=double,
        model=MODEL,
        params=EnhanceParams(),
        settings=Settings(),
        limit=1,
    )
    return result.held_by is None


_IN_A_CALLBACK = """
import os, signal, sys, weakref
from tests.batch.samples import MODEL, double
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.params import EnhanceParams

class Thing:
    pass

seen = []

def at_a_bad_moment(image):
    seen.append(image)
    if len(seen) < 10:
        return double(image)
    thing = Thing()
    kept = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGTERM))
    del thing
    return double(image)

run_batch(
    *sys.argv[1:], enhance=at_a_bad_moment, model=MODEL, params=EnhanceParams(),
    settings=Settings(lease_s=300),
)
"""


def job(code: str, places: tuple[str, str], **settings: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *places],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_signal_within_a_weakref_callback_ends_the_job(places: tuple[str, str]) -> None:
    fill(places[0], PICTURES)
    with job(_IN_A_CALLBACK, places) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert b"Exception ignored" not in err
    assert lease_of(places[1])["released"]
    records = open_store(places[1], Settings()).child("_mirnet")
    assert 1 <= len(list(Ledger(records).past_runs().rows())) < len(PICTURES)
    assert not suspects(Ledger(records).past_runs())


_STUCK = """
import sys, threading
from tests.batch.samples import MODEL, double
from mirnet.batch.run import run_batch
from mirnet.config import load_settings
from mirnet.params import EnhanceParams

def stuck(image):
    if image.pixels.shape[0] == 31:
        print("stuck", flush=True)
        lock = threading.Lock(); lock.acquire(); lock.acquire()
    return double(image)

run_batch(*sys.argv[1:], enhance=stuck, model=MODEL, params=EnhanceParams(),
          settings=load_settings())
"""


def test_a_job_that_is_stuck_loses_its_lease_and_ends(places: tuple[str, str]) -> None:
    fill(places[0], {"a.png": picture(0), "b.png": picture(1, side=31), "c.png": picture(2)})
    settings = {"MIRNET_LEASE_S": "1", "MIRNET_STUCK_S": "2", "MIRNET_STOP_S": "1"}
    with job(_STUCK, places, **settings) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert b"no progress for 2 s (MIRNET_STUCK_S)" in err
    assert b"still at work 1 s after SIGTERM" in err
    # as one that killed its process, the image goes last
    assert {
        key for key, _ in suspects(Ledger.of_target(open_store(places[1], Settings())).past_runs())
    } >= {"b.png"}
    again = enhance(*places)
    assert (again.enhanced + again.skipped, again.failed) == (3, 0)
    assert again.enhanced >= 1  # the one that it was stuck in


def test_a_signal_just_before_the_lease_is_taken_leaves_none(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    with pytest.raises(SystemExit), termination_as_exception():
        signal.raise_signal(signal.SIGTERM)
        with Lease(Ledger(store), lease_s=300):
            pytest.fail("unreachable")
    assert store.head("lease.json") is None


def test_a_lease_is_renewed_while_work_gets_on_only(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    with Lease(Ledger(store), lease_s=0.4, stuck_s=1.0) as lease:
        for _ in range(20):
            time.sleep(0.1)
            advance()
        lease.check()
        time.sleep(1.6)
        with pytest.raises(LeaseLost, match=r"no progress for 1 s \(MIRNET_STUCK_S\)"):
            lease.check()
        time.sleep(3.1)  # the clocks of stores count seconds
        with Lease(Ledger(store), lease_s=0.4) as successor:
            assert successor.entry.term == lease.entry.term + 1


def test_each_picture_is_progress(places: tuple[str, str]) -> None:
    fill(places[0], {f"{n}.png": picture(n) for n in range(12)})

    def slow(image: Image) -> Image:
        time.sleep(0.25)
        return double(image)

    result = run_batch(
        *places,
        enhance=slow,
        model=MODEL,
        params=EnhanceParams(contact_images=0),
        settings=Settings(lease_s=0.6, stuck_s=1.5, io_threads=1),
    )
    assert result.enhanced == 12


def test_how_long_it_is_held_is_by_the_holders_own_clock(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    begun = time.monotonic()
    with Lease(Ledger(store), lease_s=0.4):
        time.sleep(1.0)
        with pytest.raises(LeaseHeld) as caught:
            Lease(Ledger(store), lease_s=0.4).__enter__()
    assert 0.5 < caught.value.held_s < time.monotonic() - begun


def test_the_same_holder_for_too_long_is_an_error(places: tuple[str, str]) -> None:
    fill(places[0], PICTURES)
    store = open_store(places[1], Settings())
    held = LeaseEntry(5, "run", "host pid 1", 60.0, held_s=7200.0)
    store.put("_mirnet/lease.json", held.dump())
    assert enhance(*places).held_by
    with pytest.raises(LeaseHeld, match=r"for 2\.0 h, longer than enhance\.max_held_s \(3600\)"):
        enhance(*places, max_held_s=3600.0)


def test_a_lease_of_a_newer_mirnet_is_understood(places: tuple[str, str]) -> None:
    store = open_store(places[1], Settings())
    told = json.loads(LeaseEntry(5, "run", "host pid 1", 60.0).dump()) | {"mood": "fine"}
    store.put("lease.json", json.dumps(told).encode())
    with pytest.raises(LeaseHeld, match="host pid 1"):
        Lease(Ledger(store), lease_s=1).__enter__()
