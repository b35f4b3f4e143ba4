"""What the journals of all jobs on one target say about its lease and its outputs.

An event happened at some time between its begin and its end. A rule counts as broken only if it is
broken for each of these times.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf

from benchmarks.soak_job import Event

TAKEN_OVER = "another job has taken it over"


@dataclass
class Fate:
    """What happened to one job. Times are of ``time.monotonic``; infinity: never.

    ``killed_at``, ``termed_at``: just before SIGKILL and SIGTERM were sent.
    """

    number: int
    events: list[Event] = field(default_factory=list)
    killed_at: float = inf
    termed_at: float = inf
    exit_code: int | None = None

    def of(self, what: str) -> list[Event]:
        return [event for event in self.events if event.what == what]

    @property
    def text(self) -> str:
        """How it ended, in its own words; empty if it was killed."""
        return next((event.text for event in self.of("end")), "")

    @property
    def ended_at(self) -> float:
        """From then on it may be dead, and nobody has to leave the lease to it."""
        if end := self.of("end"):
            return min(self.killed_at, end[0].ended)
        if self.exit_code == 143:  # by the watchdog, which writes no journal
            return min(self.killed_at, self.termed_at)
        return self.killed_at


@dataclass(frozen=True)
class Hold:
    """One job with one term of the lease."""

    fate: Fate
    take: Event

    @property
    def term(self) -> int:
        return self.take.term

    @property
    def given_back_at(self) -> float:
        return min((event.begun for event in self.fate.of("releasing")), default=inf)

    def renewed_at(self, before: float) -> float:
        """No later than its last renewal that began before a time."""
        signs = [self.take, *self.fate.of("renew")]
        return max(event.begun for event in signs if event.begun <= before)


def holds_of(fates: Sequence[Fate]) -> list[Hold]:
    """In the order of their terms."""
    holds = [Hold(fate, take) for fate in fates for take in fate.of("take")]
    return sorted(holds, key=lambda hold: hold.term)


def broken_by(fates: Sequence[Fate], lease_s: float) -> Iterator[str]:
    """Each breach of the protocol, with the jobs that it is between."""
    holds = holds_of(fates)
    for first, second in pairwise(holds):
        jobs = f"jobs {first.fate.number} and {second.fate.number}"
        if first.term == second.term:
            yield f"{jobs} both hold term {first.term}"
            continue
        yield from _robbed(first, second, lease_s)
        for what, meaning in (("renew", "renewed"), ("check", "may write under")):
            late = [e for e in first.fate.of(what) if e.begun > second.take.ended]
            if late:
                after_s = late[0].begun - second.take.ended
                yield f"{jobs}: the first {meaning} its lease {after_s:.3f} s after it was taken"
    yield from _given_up_for_nothing(fates)
    yield from _written_twice(fates)


def _robbed(first: Hold, second: Hold, lease_s: float) -> Iterator[str]:
    taken = second.take.ended
    if taken <= first.take.begun:
        yield f"term {second.term} was taken before term {first.term}"
    elif min(first.given_back_at, first.fate.ended_at) > taken:
        idle_s = taken - first.renewed_at(before=taken)
        if idle_s < lease_s:
            yield (
                f"job {second.fate.number} took the lease of job {first.fate.number}, which lives, "
                f"{idle_s:.3f} s after it was renewed"
            )


def _given_up_for_nothing(fates: Sequence[Fate]) -> Iterator[str]:
    for fate in fates:
        if TAKEN_OVER not in fate.text:
            continue
        own, end = max(take.term for take in fate.of("take")), fate.of("end")[0].ended
        tries = [event for other in fates for event in other.of("taking")]
        if not any(event.term > own and event.begun < end for event in tries):
            yield f"job {fate.number} gave up a lease that nobody took: {fate.text}"


def _written_twice(fates: Sequence[Fate]) -> Iterator[str]:
    writes = Counter(event.text for fate in fates for event in fate.of("write"))
    for what, number in writes.items():
        if number > 1:
            yield f"{what}: this version of an input was written {number} times"


def counts_of(fates: Sequence[Fate]) -> Counter[str]:
    """How often the protocol was put to the test."""
    counts: Counter[str] = Counter()
    holds = holds_of(fates)
    counts["leases"] = len(holds)
    for first, second in pairwise(holds):
        taken = second.take.ended
        if first.given_back_at <= taken:
            counts["leases given back"] += 1
        elif first.fate.ended_at <= taken:
            counts["leases of dead jobs taken over"] += 1
        else:
            counts["leases of frozen or starved jobs taken over"] += 1
        late = [e for e in first.fate.of("write") if e.begun > taken]
        counts["writes that began before a takeover and ended after it"] += len(
            [e for e in first.fate.of("write") if e.begun <= taken < e.ended]
        )
        counts["writes after a takeover, checked before it"] += len(late)
    counts["renewals"] = sum(len(fate.of("renew")) for fate in fates)
    counts["checks before writes"] = sum(len(fate.of("check")) for fate in fates)
    counts["writes of outputs"] = sum(len(fate.of("write")) for fate in fates)
    return counts
