"""The soak, for as long as a test may take, and its rules on journals that were made up."""

from __future__ import annotations

import json
import subprocess
import sys
from math import inf
from pathlib import Path

import pytest

from benchmarks.soak_checks import TAKEN_OVER, Fate, broken_by
from benchmarks.soak_job import Event

ROOT = Path(__file__).parents[2]


def at(what: str, time: float, *, term: int = 1, text: str = "") -> Event:
    return Event(what, time, time + 0.1, term, text)


def job(*events: Event, number: int = 1, killed_at: float = inf, code: int | None = 0) -> Fate:
    return Fate(number, list(events), killed_at=killed_at, exit_code=code)


LIVING = [at("take", 0), at("renew", 5), at("end", 30)]
SECOND = at("take", 6, term=2)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (job(*LIVING), job(SECOND), "took the lease of job 1, which lives, 1.100 s after"),
        (job(*LIVING), job(at("take", 9, term=1)), "both hold term 1"),
        (job(*LIVING, at("renew", 12)), job(at("take", 8, term=2)), "renewed its lease 3.900 s"),
        (job(*LIVING, at("check", 12)), job(at("take", 8, term=2)), "may write under its lease"),
        (job(at("write", 1, text="a v1")), job(at("write", 2, text="a v1")), "written 2 times"),
        (job(*LIVING[:2], at("end", 9, text=TAKEN_OVER)), job(), "a lease that nobody took"),
        (job(at("take", 3)), job(at("take", 1, term=2)), "was taken before term 1"),
    ],
)
def test_each_breach_is_named(first: Fate, second: Fate, words: str) -> None:
    second.number = 2
    broken = list(broken_by([second, first], lease_s=2.0))
    assert len(broken) == 1
    assert words in broken[0]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (job(*LIVING), job(at("take", 7.5, term=2))),  # frozen for longer than its lease
        (job(*LIVING[:2], killed_at=5.5, code=-9), job(SECOND)),
        (job(*LIVING, at("releasing", 5.5)), job(SECOND)),
        (job(*LIVING[:2], at("end", 5.5, text="StorageError: not given back")), job(SECOND)),
        (job(*LIVING, at("check", 7)), job(at("take", 7, term=2))),  # nobody knows which was first
        (job(*LIVING[:2], at("end", 9, text=TAKEN_OVER)), job(at("taking", 8, term=2))),
    ],
)
def test_what_is_right_is_no_breach(first: Fate, second: Fate) -> None:
    assert list(broken_by([first, second], lease_s=2.0)) == []


@pytest.mark.slow
def test_the_invariants_hold_under_everything_at_once() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", "--minutes", "0.6", "--seed", "20"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=600,
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, told["invariants"]) == (0, "hold"), done.stdout[-5000:]
    for what in ("SIGTERM", "SIGKILL", "SIGSTOP", "clocks off", "faults of the store"):
        assert told[what], told
    assert told["leases"] > 5
    assert told["writes of outputs"] > 20
