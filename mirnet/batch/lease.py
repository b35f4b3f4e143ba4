"""One job per target: a lease object that its holder renews, and that expires if it does not.

Clocks of clients are not compared: expiry is judged by the store's own clock (Date minus
Last-Modified of a response), the holder uses its monotonic clock, and terms only increase.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import secrets
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Self

import psutil
from pydantic import Field, TypeAdapter

from mirnet.batch.ledger import Ledger
from mirnet.batch.records import parse_json
from mirnet.errors import MirnetError, StorageError
from mirnet.signals import advance, ask_to_stop, idle_s

logger = logging.getLogger(__name__)

_RENEWALS_A_LEASE = 4
# distinguishes this process from an earlier one with the same pid
_PROCESS = secrets.token_hex(8)
_held_here: set[str] = set()
# run ids, which begin with the term in eight digits, sort by it
_MAX_TERM = 10**8 - 1
_Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LeaseHeld(MirnetError):
    """Another job, ``holder``, is working on this target."""

    def __init__(self, message: str, *, holder: str, run_id: str, held_s: float = 0.0) -> None:
        super().__init__(message)
        self.holder = holder
        self.run_id = run_id
        self.held_s = held_s


class LeaseLost(StorageError):
    """Our lease was taken over or not renewed in time: stop, another job may be running."""


@dataclass(frozen=True, slots=True)
class LeaseEntry:
    """Content of the lease object. ``term`` increases by one with every holder."""

    term: Annotated[int, Field(ge=0, lt=_MAX_TERM)]
    run_id: str
    holder: str
    lease_s: _Seconds
    process: str = ""
    released: bool = False
    machine: str = ""
    pid: Annotated[int, Field(ge=0, lt=2**31)] = 0
    started: _Seconds = 0.0
    held_s: _Seconds = 0.0  # by the holder's own clock, as of the last renewal

    def dump(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()


_ENTRY = TypeAdapter(LeaseEntry)  # unknown keys, of newer versions, are ignored


class Lease:
    """``with Lease(ledger, lease_s=60) as lease:``; a thread renews it while there is progress.

    Args:
        ledger: of the target; holds it.
        lease_s: seconds without renewal after which others may take it.
        stuck_s: seconds without a call of :func:`mirnet.signals.advance` in this process after
            which it is no longer renewed, and the process is asked to stop.

    Raises:
        LeaseHeld: another job holds it and has renewed it within its ``lease_s``.
        StorageError: the store refuses.
    """

    def __init__(self, ledger: Ledger, *, lease_s: float, stuck_s: float = 3600.0) -> None:
        self._ledger = ledger
        self._lease_s, self._stuck_s = lease_s, stuck_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, daemon=True)
        self._lost: str | None = None

    def __enter__(self) -> Self:
        advance()  # before taking the lease: nobody would release it if this raises
        self.entry, self._version = self._acquire()
        self._renewed = self._taken = time.monotonic()
        _held_here.add(self.run_id)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        _held_here.discard(self.run_id)
        if self._lost is not None:
            return
        self._lost = "it was given back"
        released = LeaseEntry(**asdict(self.entry) | {"released": True})
        try:
            self._ledger.write_lease(released.dump(), replaces=self._version)
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
        while True:
            head = self._ledger.lease_head()
            found = None if head is None else self._read(head.version)
            if head is not None:
                if found is None:
                    continue
                self._refuse_if_alive(found, head.age_s)
            entry = self._entry(term=found.term + 1 if found else 1)
            version = self._write(entry, head.version if head else None)
            if version is not None:
                return entry, version

    def _read(self, version: str) -> LeaseEntry | None:
        """The entry of that version; none if it has changed in the meantime."""
        blob = self._ledger.read_lease()
        if blob.version != version:
            return None
        advice = "is not a lease; delete it if no job is at work"
        return parse_json(_ENTRY, blob.data, address=self._ledger.lease_address, advice=advice)

    def _write(self, entry: LeaseEntry, replaces: str | None) -> str | None:
        """The written version; none if another job was first."""
        data = entry.dump()
        version = self._ledger.write_lease(data, replaces=replaces)
        if version is not None:
            return version
        # a write whose response was lost may have succeeded; its repetition was refused
        blob = self._ledger.read_lease()
        return blob.version if blob.data == data else None

    def _refuse_if_alive(self, found: LeaseEntry, age_s: float) -> None:
        if found.released:
            return
        if found.process == _own_process() and found.run_id not in _held_here:
            return  # an earlier attempt of ours that could not release it
        if _died_here(found):
            logger.warning("taking over the lease of %s, which has died", found.holder)
            return
        if age_s > found.lease_s:
            logger.warning("taking over the lease of %s, silent for %.0f s", found.holder, age_s)
            return
        age_s = max(age_s, 0)
        raise LeaseHeld(
            f"{found.holder} is at work on {self._ledger.store.uri} (run {found.run_id}, last sign "
            f"of life {age_s:.0f} s ago); nothing to do here. Were it dead, the lease would be "
            f"free in {found.lease_s - age_s:.0f} s",
            holder=found.holder,
            run_id=found.run_id,
            held_s=found.held_s,
        )

    def _entry(self, *, term: int) -> LeaseEntry:
        now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        run_id = f"{term:08d}-{now}-{secrets.token_hex(3)}"
        holder = f"{socket.gethostname()} pid {os.getpid()}"
        return LeaseEntry(
            term,
            run_id,
            holder,
            self._lease_s,
            process=_own_process(),
            machine=_machine(),
            pid=os.getpid(),
            started=psutil.Process().create_time(),
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


def _died_here(entry: LeaseEntry) -> bool:
    """Whether the holder was a process of this machine that has ended; False if in doubt."""
    if not entry.machine or entry.machine != _machine():
        return False
    try:
        return abs(psutil.Process(entry.pid).create_time() - entry.started) > 1
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


@functools.cache
def _machine() -> str:
    """Identifies this boot of the system and this container; empty if unknown."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return f"{boot.read_text().strip()} {space.readlink()}"
    except OSError:
        return ""


def _own_process() -> str:
    return f"{_PROCESS}-{os.getpid()}"
