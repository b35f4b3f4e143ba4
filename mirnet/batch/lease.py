"""One job per target: a lease object that its holder renews, and that expires if it does not.

No two clocks are compared. By the age that the store gives, a lease can only be too young to be
expired. It is taken from a holder that may be alive only after this process has watched it for a
full ``lease_s`` of its own monotonic clock without seeing it renewed. The holder uses its monotonic
clock as well. Terms only increase, also if the lease object is deleted: the ids of runs have them.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Self

import psutil
from pydantic import AfterValidator, Field, TypeAdapter

from mirnet.batch.ledger import Ledger
from mirnet.batch.records import parse_json
from mirnet.config import LONGEST_LEASE_S
from mirnet.errors import MirnetError, StorageError
from mirnet.liveness import ProcessIdentity, Unchanged, has_ended, this_process
from mirnet.signals import advance, ask_to_stop, idle_s, stop_if_asked
from mirnet.storage.store import Head, ObjectMissing

logger = logging.getLogger(__name__)

_RENEWALS_A_LEASE = 4
_LOOKS_A_LEASE = 8
_LONGEST_NAP_S = 5.0
_POLL_S = 0.5
# a date that is further ahead than this says nothing about the age
_AHEAD_S = 2.0
_MAX_BYTES = 1 << 16
_MAX_TRIES = 20
# run ids, which begin with the term in eight digits, sort by it
_MAX_TERM = 10**8 - 1
_RUN_ID = re.compile(r"(\d{8})-", re.ASCII)
# distinguishes this process from an earlier one with the same pid
_PROCESS = secrets.token_hex(8)
_held_here: set[str] = set()


class LeaseHeld(MirnetError):
    """Another job is working on this target."""

    def __init__(self, message: str, *, run_id: str, held_s: float) -> None:
        super().__init__(message)
        self.run_id, self.held_s = run_id, held_s


class LeaseLost(StorageError):
    """Our lease was taken over or not renewed in time: stop, another job may be running."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("control characters")
    return text


_Text = Annotated[str, Field(max_length=500), AfterValidator(_printable)]
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """Content of the lease object. ``term`` is larger than that of every earlier holder."""

    term: Annotated[int, Field(ge=0, lt=_MAX_TERM)]
    run_id: _Text
    holder: _Text
    lease_s: Annotated[_Seconds, Field(gt=0)]  # older versions had no bound
    process: _Text = ""
    released: bool = False
    machine: _Text = ""
    pid: Annotated[int, Field(ge=0, lt=2**31)] = 0
    started: _Seconds = 0.0  # by the wall clock; for older versions only
    held_s: _Seconds = 0.0  # by the holder's own clock, as of the last renewal
    ticks: Annotated[int, Field(ge=0, lt=2**63)] = 0

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()


_ENTRY = TypeAdapter(LeaseEntry)  # unknown keys, of newer versions, are ignored


class Lease:
    """``with Lease(ledger, lease_s=60) as lease:``; a thread renews it while there is progress.

    Args:
        ledger: of the target; holds it.
        lease_s: seconds without renewal after which others may take it.
        stuck_s: seconds without a call of :func:`mirnet.signals.advance` in this process after
            which it is no longer renewed, and the process is asked to stop.
        clock: monotonic, in seconds; with ``sleep`` for watching the lease of another job.

    Raises:
        LeaseHeld: another job holds it and has renewed it within its ``lease_s``.
        StorageError: the store refuses, or ignores conditions of writes.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        lease_s: float,
        stuck_s: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._ledger = ledger
        self._clock, self._sleep = clock, sleep
        self._lease_s, self._stuck_s = lease_s, stuck_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, daemon=True)
        self._lost: str | None = None

    def __enter__(self) -> Self:
        advance()  # before taking the lease: nobody would release it if this raises
        self.entry, self._version = self._acquire()
        self._renewed = self._taken = time.monotonic()
        try:
            self._check_conditions()
        except BaseException:
            self._release()
            _held_here.discard(self.run_id)
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._lost is None:
            self._release()
        _held_here.discard(self.run_id)

    def _check_conditions(self) -> None:
        ignored = self._ledger.ignored_condition(self.entry.dump())
        if ignored is not None:
            raise StorageError(
                f"{self._ledger.store.uri}: this store ignores {ignored} of a write, so two jobs "
                "could overwrite each other's outputs; choose a target on a store with conditional "
                "writes",
                transient=False,
            )

    def _release(self) -> None:
        self._lost = "it was given back"
        released = replace(self.entry, released=True)
        try:
            self._write(released, self._version)
        except StorageError as error:
            # it expires by itself, and the error that ended the run is more important
            logger.warning("lease not given back: %s", error)

    @property
    def run_id(self) -> str:
        """Name of the run; sorts by term, independent of clocks."""
        return self.entry.run_id

    def check(self) -> None:
        """Call before each commit.

        Raises:
            LeaseLost: another job may be at work.
        """
        if self._lost is None and time.monotonic() - self._renewed > self._lease_s:
            self._lost = f"not renewed for {self._lease_s:g} s"
        if self._lost is not None:
            raise LeaseLost(f"{self._ledger.lease_address}: lease lost: {self._lost}")

    def _acquire(self) -> tuple[LeaseEntry, str]:
        for _ in range(_MAX_TRIES):
            taken = self._try_to_acquire()
            if taken is not None:
                return taken
            self._rest(_POLL_S)
        raise StorageError(
            f"{self._ledger.lease_address}: not taken in {_MAX_TRIES} attempts: it changed each "
            "time between two requests, or the store shows different ETags of it to HEAD and GET "
            "(a proxy that compresses responses changes them)"
        )

    def _try_to_acquire(self) -> tuple[LeaseEntry, str] | None:
        """None if the lease changed in the meantime."""
        head, found = self._ledger.lease_head(), None
        if head is not None:
            found = self._read(head)
            if found is None:
                return None
            self._refuse_if_alive(found, head)
        entry = self._entry(term=self._next_term(found))
        version = self._write_first(entry, head.version if head else None)
        return None if version is None else (entry, version)

    def _next_term(self, found: LeaseEntry | None) -> int:
        """Larger than those of all runs: somebody may have deleted the lease since."""
        highest = found.term if found else 0, self._ledger.lease_address
        for run_id in self._ledger.run_ids():
            if match := _RUN_ID.match(run_id):
                highest = max(highest, (int(match[1]), self._ledger.run(run_id).uri))
        term = highest[0] + 1
        if term >= _MAX_TERM:
            raise StorageError(
                f"{highest[1]}: no term is left after this one; move it away if no job is at work",
                transient=False,
            )
        return term

    def _write_first(self, entry: LeaseEntry, replaces: str | None) -> str | None:
        """As :meth:`_write`; other threads see from the beginning that it is held here."""
        version = None
        _held_here.add(entry.run_id)
        try:
            version = self._write(entry, replaces)
        finally:
            if version is None:
                _held_here.discard(entry.run_id)
        return version

    def _read(self, head: Head) -> LeaseEntry | None:
        """The entry of that version; none if it has changed in the meantime."""
        address, advice = (
            self._ledger.lease_address,
            "is not a lease; delete it if no job is at work",
        )
        if head.size > _MAX_BYTES:
            raise StorageError(f"{address} {advice} (too large)", transient=False)
        try:
            blob = self._ledger.read_lease()
        except ObjectMissing:
            return None
        if blob.version != head.version:
            return None
        entry = parse_json(_ENTRY, blob.data, address=address, advice=advice)
        return replace(entry, lease_s=min(entry.lease_s, LONGEST_LEASE_S))

    def _write(self, entry: LeaseEntry, replaces: str | None) -> str | None:
        """The written version; none if another job was first."""
        data = entry.dump()
        version = self._ledger.write_lease(data, replaces=replaces)
        if version is not None:
            return version
        # a write whose response was lost may have succeeded; its repetition was refused
        try:
            blob = self._ledger.read_lease()
        except ObjectMissing:
            return None
        if blob.version == replaces:
            raise StorageError(
                f"{self._ledger.lease_address}: the store refuses a write on the condition that "
                "holds (If-Match with the ETag of the object); it cannot be a target",
                transient=False,
            )
        if blob.data == data:
            return blob.version
        if _is_of(entry.run_id, blob.data):
            # nor do we know of an earlier renewal: neither its response nor the lease could be read
            return self._ledger.write_lease(data, replaces=blob.version)
        return None

    def _refuse_if_alive(self, found: LeaseEntry, head: Head) -> None:
        if found.released:
            return
        if found.process == _own_process() and found.run_id not in _held_here:
            return  # an earlier attempt of ours that could not release it
        if has_ended(ProcessIdentity(found.machine, found.pid, found.ticks)):
            logger.warning("taking over the lease of %s, which has died", found.holder)
            return
        if -_AHEAD_S <= head.age_s <= found.lease_s:
            raise self._held(found, head.age_s)
        self._watch(found, head)

    def _watch(self, found: LeaseEntry, head: Head) -> None:
        """Return once it has not been renewed for its ``lease_s`` by our own clock.

        Its age is no proof: the clock of the store may have been set since the last renewal.

        Raises:
            LeaseHeld: it was renewed.
        """
        age_s, nap_s = head.age_s, min(found.lease_s / _LOOKS_A_LEASE, _LONGEST_NAP_S)
        dated = f"{age_s:.0f} s old" if age_s > 0 else f"dated {-age_s:.0f} s ahead"
        logger.info(
            "the lease of %s is %s: watching it for %g s", found.holder, dated, found.lease_s
        )
        unchanged = Unchanged(max_gap_s=2 * nap_s, clock=self._clock)
        unchanged.look(head.version)
        while True:
            self._rest(nap_s)
            now = self._ledger.lease_head()
            if now is None:
                return
            # the versions of some stores depend on the content only
            if now.version != head.version or now.age_s < age_s - _AHEAD_S:
                entry = self._read(now)
                if entry is not None and entry.released:
                    return
                raise self._held(entry or found, 0.0)
            age_s = now.age_s
            if unchanged.look(now.version) > found.lease_s:
                break
        logger.warning("taking over the lease of %s, %s and not renewed", found.holder, dated)

    def _rest(self, seconds: float) -> None:
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            stop_if_asked()
            self._sleep(min(left, _POLL_S))

    def _held(self, found: LeaseEntry, age_s: float) -> LeaseHeld:
        age_s = max(age_s, 0.0)
        return LeaseHeld(
            f"{found.holder} is at work on {self._ledger.store.uri} (run {found.run_id}, last sign "
            f"of life {age_s:.0f} s ago); nothing to do here. Were it dead, the lease would be "
            f"free in {found.lease_s - age_s:.0f} s",
            run_id=found.run_id,
            held_s=found.held_s,
        )

    def _entry(self, *, term: int) -> LeaseEntry:
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        run_id = f"{term:08d}-{now}-{secrets.token_hex(3)}"
        process = this_process()
        return LeaseEntry(
            term,
            run_id,
            f"{socket.gethostname()} pid {process.pid}",
            self._lease_s,
            process=_own_process(),
            machine=process.machine,
            pid=process.pid,
            started=psutil.Process().create_time(),
            ticks=process.ticks,
        )

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(self._lease_s / _RENEWALS_A_LEASE):
            begun = time.monotonic()
            if idle_s() > self._stuck_s:
                self._give_up()
                return
            entry = replace(self.entry, held_s=round(begun - self._taken, 3))
            try:
                version = self._write(entry, self._version)
            except StorageError as error:
                logger.warning("lease not renewed: %s", error)
                continue
            if version is None:
                self._lost = "another job has taken it over"
                return
            self.entry, self._version, self._renewed = entry, version, begun

    def _give_up(self) -> None:
        self._lost = f"no progress for {self._stuck_s:g} s (MIRNET_STUCK_S)"
        logger.error("%s: %s; ending", self._ledger.lease_address, self._lost)
        ask_to_stop()


def _is_of(run_id: str, data: bytes) -> bool:
    try:
        return _ENTRY.validate_json(data).run_id == run_id
    except ValueError:
        return False


def _own_process() -> str:
    return f"{_PROCESS}-{os.getpid()}"
