"""Batches under everything at once: jobs that race for a target and are hit at random by SIGTERM,
SIGKILL and SIGSTOP, clocks that are set, faults of the store, inputs that arrive, change and
vanish. Then the invariants are checked.

    python -m benchmarks.soak --runs 200
    python -m benchmarks.soak --minutes 30 --seed 7

Jobs are real processes of the batch engine, with a stand-in for the model, on a local folder and on
a real S3 server behind a proxy with faults. The seed decides what happens to whom, not when the
processes get there. Exit code 1: an invariant is broken, and is named.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import psutil

from benchmarks.soak_checks import Fate, broken_by, counts_of
from benchmarks.soak_job import CONTEXT, Order, read_journal, start
from benchmarks.soak_world import World, broken_in
from mirnet.config import Settings, environment
from mirnet.storage.s3server import S3Server
from tests.fault_proxy import FaultProxy

TAG = "MIRNET_SOAK_TAG"
TICK_S = 0.02
KINDS = ("none", "term", "term", "kill", "kill", "stop", "stop", "stop, then the end")
CLOCKS_OFF_S = (-86_400.0, -3600.0, -150.0, -2.0, 2.0, 150.0, 3600.0, 86_400.0)
# a job that shows no sign of work for so long does not work, however crowded the machine is
IDLE_S = 180.0


@dataclass(frozen=True)
class Hit:
    """A signal to come. ``after_s``: from the start, or from when the job takes the lease."""

    number: signal.Signals
    after_s: float
    from_take: bool

    def __str__(self) -> str:
        of = "the take" if self.from_take else "the start"
        return f"{self.number.name} {self.after_s:.2f} s after {of}"


@dataclass
class Job:
    """A process, what is to happen to it, and what has."""

    order: Order
    world: World
    process: ForkServerProcess
    hits: list[Hit]
    faults: str
    fate: Fate
    begun: float = field(default_factory=time.monotonic)
    taken: float | None = None
    done: list[str] = field(default_factory=list)
    is_stopped: bool = False
    seen: int = 0
    worked: float = field(default_factory=time.monotonic)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def look(self) -> None:
        """Notice that it took the lease, and that it works; renewing the lease is no work."""
        with suppress(FileNotFoundError):
            lines = self.order.journal.read_bytes().splitlines()
            if self.taken is None and any(line.startswith(b'["take"') for line in lines):
                self.taken = time.monotonic()
            work = sum(not line.startswith(b'["renew"') for line in lines)
            if work != self.seen or self.is_stopped:
                self.seen, self.worked = work, time.monotonic()

    def hit(self) -> None:
        """Send the signals whose time has come."""
        while self.hits:
            origin = self.taken if self.hits[0].from_take else self.begun
            if origin is None or time.monotonic() < origin + self.hits[0].after_s:
                return
            self._send(self.hits.pop(0).number)

    def _send(self, number: signal.Signals) -> None:
        now = time.monotonic()
        if number == signal.SIGKILL:
            self.fate.killed_at = min(self.fate.killed_at, now)
        if number == signal.SIGTERM:
            self.fate.termed_at = min(self.fate.termed_at, now)
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)
            self.is_stopped = number == signal.SIGSTOP
            self.done.append(f"{number.name} at {now - self.begun:.1f} s")

    @property
    def is_idle(self) -> bool:
        return time.monotonic() - self.worked > IDLE_S

    def end(self) -> None:
        """Kill it, whatever state it is in."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.process.join()


class Soak:
    """Jobs in turn on some worlds, and their fates."""

    def __init__(
        self, worlds: Sequence[World], folder: Path, *, seed: int, lease_s: float, at_once: int
    ) -> None:
        self._worlds, self._folder, self._lease_s = worlds, folder, lease_s
        self._chance, self._at_once = random.Random(seed), at_once
        self._jobs: list[Job] = []
        self._fates: dict[str, list[Fate]] = {world.name: [] for world in worlds}
        self._hits: list[list[Hit]] = []
        self._ended = 0
        self.counts: Counter[str] = Counter()
        self.broken: list[str] = []

    def run(self, *, runs: float, seconds: float) -> None:
        """Start jobs until so many runs or seconds are over, and wait for the last of them."""
        end = time.monotonic() + seconds
        try:
            while self.counts["runs"] < runs and time.monotonic() < end:
                self._start_sometimes()
                self._tick()
            while self._jobs:
                self._tick()
        finally:
            for job in self._jobs:
                job.end()

    def check(self) -> None:
        """After the last job: the invariants."""
        self.broken += _left_processes(str(self._folder))
        for world in self._worlds:
            fates = self._fates[world.name]
            told = [*broken_by(fates, self._lease_s), *broken_in(world)]
            self.broken += [f"{world.name}: {each}" for each in told]
            self.counts += counts_of(fates) + world.counts
            if world.proxy is not None:
                self.counts["requests"] += world.proxy.counts["requests"]
                self.counts["faults of the store"] += world.proxy.counts["faults"]

    def _tick(self) -> None:
        time.sleep(TICK_S)
        for job in list(self._jobs):
            job.look()
            job.hit()
            if not job.process.is_alive():
                self._jobs.remove(job)
                self._note_end(job)
            elif job.is_idle:
                self._jobs.remove(job)
                self._end_idle(job)

    def _start_sometimes(self) -> None:
        """Soon where nobody is at work; more jobs on the same target now and then."""
        world = self._chance.choice(self._worlds)
        is_free = all(job.world is not world or job.is_stopped for job in self._jobs)
        if len(self._jobs) < self._at_once and self._chance.random() < (0.2 if is_free else 0.01):
            self._start(world)

    def _start(self, world: World) -> None:
        chance, number = self._chance, self.counts["runs"]
        world.arrive(6)
        world.change(chance)
        if chance.random() < 0.5:
            world.vanish(chance)
        faults = world.break_store(chance)
        order = Order(
            number=number,
            source=world.source,
            target=world.target,
            folder=self._folder,
            settings=world.settings_of_job(),
            variables=world.variables | {TAG: str(self._folder)},
            seconds_an_image=chance.choice([0.01, 0.05, 0.1]),
            clock=_clock(chance),
            disk_fault_rate=chance.choice([0.0, 0.0, 0.01]) if world.proxy is None else 0.0,
            has_child=chance.random() < 0.3,
        )
        fate = Fate(number)
        self._fates[world.name].append(fate)
        self._jobs.append(Job(order, world, start(order), self._next_hits(), faults, fate))
        self.counts["runs"] += 1

    def _next_hits(self) -> list[Hit]:
        """All kinds in turn."""
        if not self._hits:
            self._hits = [_hits(kind, self._chance, self._lease_s) for kind in KINDS]
            self._chance.shuffle(self._hits)
        return self._hits.pop()

    def _note_end(self, job: Job) -> None:
        job.process.join()
        fate = job.fate
        fate.exit_code, fate.events = job.process.exitcode, read_journal(job.order.journal)
        how = fate.text or f"exit code {fate.exit_code}"
        order = job.order
        clock = ", ".join(f"{off_s:+g} s at {after_s:.1f} s" for after_s, off_s in order.clock)
        disk = f", disk {order.disk_fault_rate:.0%}" if order.disk_fault_rate else ""
        hits = ", ".join(job.done) or "no signal"
        term = max((event.term for event in fate.of("take")), default=0)
        print(
            f"run {order.number:>4} {job.world.name:<5} term {term:>4}: {hits}; clock "
            f"{clock or 'right'}; faults {job.faults}{disk}: {how[:150]}",
            flush=True,
        )
        self.counts[_ending(fate)] += 1
        for name in job.done:
            self.counts[name.partition(" ")[0]] += 1
        self.counts["clocks off"] += bool(order.clock)
        if problem := _unexplained(job):
            self.broken.append(f"{job.world.name}: run {order.number}: {problem}")
        self._ended += 1
        if job.hits and not job.done:
            self._hits.append(job.hits)  # it ended before: the next one gets them
        if self._ended % 10 == 0:
            print(f"-- {self._ended} runs ended, {len(self.broken)} unexplained", flush=True)

    def _end_idle(self, job: Job) -> None:
        with suppress(ProcessLookupError):
            os.kill(job.pid, signal.SIGUSR1)  # its stacks, into its log
            time.sleep(1.0)
        job.fate.killed_at = min(job.fate.killed_at, time.monotonic())
        job.end()
        self.broken.append(f"{job.world.name}: run {job.order.number}: alive, and does not work")
        self._note_end(job)


def _clock(chance: random.Random) -> tuple[tuple[float, float], ...]:
    """From the start, in the middle, or both; most clocks are right."""
    steps = []
    if chance.random() < 0.3:
        steps.append((0.0, chance.choice(CLOCKS_OFF_S)))
    if chance.random() < 0.3:
        steps.append((chance.uniform(0.1, 2.0), chance.choice(CLOCKS_OFF_S)))
    return tuple(steps)


def _hits(kind: str, chance: random.Random, lease_s: float) -> list[Hit]:
    if kind == "none":
        return []
    from_take = chance.random() < 0.7
    at = chance.uniform(0.0, 1.5 if from_take else 3.0)
    if kind in ("term", "kill"):
        number = signal.SIGTERM if kind == "term" else signal.SIGKILL
        return [Hit(number, at, from_take)]
    back = at + lease_s * chance.choice([0.5, 1.5, 3.0, 4.0])
    hits = [Hit(signal.SIGSTOP, at, from_take), Hit(signal.SIGCONT, back, from_take)]
    if kind != "stop":
        end = chance.choice([signal.SIGTERM, signal.SIGKILL])
        hits.insert(chance.choice([1, 2]), Hit(end, back, from_take))
    return hits


def _ending(fate: Fate) -> str:
    if fate.exit_code == -signal.SIGKILL:
        return "ended: killed"
    if fate.exit_code in (143, -signal.SIGTERM):
        return "ended: stopped by SIGTERM"
    return f"ended: {fate.text.partition(':')[0].partition(' of')[0].partition(' ')[0]}"


def _unexplained(job: Job) -> str | None:
    """An end that is none of those that a job may come to."""
    fate = job.fate
    may_end = {0}
    if fate.killed_at < inf:
        may_end.add(-signal.SIGKILL)
    if fate.termed_at < inf:
        may_end |= {143, -signal.SIGTERM}
    if fate.exit_code not in may_end:
        return f"exit code {fate.exit_code}: {fate.text or _last_words(job.order.log)}"
    kind = fate.text.partition(":")[0]
    is_calm = job.world.proxy is None and not job.order.disk_fault_rate
    if is_calm and kind.endswith(("Error", "TooManyBad")):
        return f"an error without a fault: {fate.text}"
    return None


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return " | ".join(lines[-3:])


def _left_processes(tag: str, *, grace_s: float = 30.0) -> list[str]:
    """Children of jobs that did not end with them."""
    end = time.monotonic() + grace_s
    while found := [process for process in psutil.process_iter() if _has_tag(process, tag)]:
        if time.monotonic() > end:
            return [f"a process is left: {process}" for process in found]
        time.sleep(0.2)
    return []


def _has_tag(process: psutil.Process, tag: str) -> bool:
    try:
        return process.environ().get(TAG) == tag
    except psutil.Error:
        return False


@contextmanager
def _worlds(folder: Path, which: str, *, seed: int, lease_s: float) -> Iterator[list[World]]:
    options: dict[str, Any] = {
        "workspace": folder / "workspace",
        "lease_s": lease_s,
        "flush_s": 0.2,
        "stop_s": 20.0,
        "stuck_s": IDLE_S / 3,
        "s3_timeout_s": 1.0,
        "io_threads": 2,
    }
    worlds = []
    with ExitStack() as stack:
        if which in ("local", "both"):
            (folder / "local" / "source").mkdir(parents=True)
            worlds.append(World("local", str(folder / "local"), Settings(**options)))
        if which in ("s3", "both"):
            server = stack.enter_context(S3Server(folder / "s3", buckets=("soak",)))
            proxy = FaultProxy(server.endpoint_url, "reset", rate=0.0, seed=seed)
            stack.enter_context(environment(**server.environment))
            settings = Settings(**options, s3_endpoint_url=server.endpoint_url)
            variables = server.environment
            world = World("s3", "s3://soak/s3", settings, variables, stack.enter_context(proxy))
            worlds.append(world)
        for world in worlds:
            world.arrive(12)
        yield worlds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="number of jobs; 200, unless --minutes is given")
    parser.add_argument("--minutes", type=float, help="to go on for")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", choices=["local", "s3", "both"], default="both")
    parser.add_argument("--at-once", type=int, default=4, help="jobs at once, over all targets")
    parser.add_argument("--lease", type=float, default=2.0, help="seconds of the lease")
    options = parser.parse_args()
    runs = options.runs or (inf if options.minutes else 200)
    CONTEXT.set_forkserver_preload(["benchmarks.soak_job"])  # of the whole process: not on import
    begun, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="mirnet-soak-"))
    with _worlds(folder, options.store, seed=options.seed, lease_s=options.lease) as worlds:
        soak = Soak(
            worlds,
            folder,
            seed=options.seed,
            lease_s=options.lease,
            at_once=options.at_once,
        )
        soak.run(runs=runs, seconds=60 * options.minutes if options.minutes else inf)
        soak.check()
    for each in soak.broken:
        print(f"BROKEN {each}", flush=True)
    figures = {
        "seed": options.seed,
        "seconds": round(time.monotonic() - begun, 1),
        "broken": soak.broken,
        "invariants": "broken" if soak.broken else "hold",
    }
    if soak.broken:
        figures["journals"] = str(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(dict(sorted(soak.counts.items())) | figures))
    sys.exit(bool(soak.broken))


if __name__ == "__main__":
    main()
