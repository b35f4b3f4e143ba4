"""One job of the soak: a batch in a process of its own, under a clock that is set and a disk that
fails, with a journal of what it does to the lease and the outputs.

The times of the journal are of ``time.monotonic``, which all processes of a machine share and which
goes on while a process is stopped. Whatever is asked of the store is noted before and after, so
that a kill in between is seen.
"""

from __future__ import annotations

import errno
import faulthandler
import json
import logging
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np

from mirnet.batch.lease import Lease, LeaseEntry
from mirnet.batch.run import run_batch
from mirnet.config import Settings, environment
from mirnet.errors import MirnetError
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.local import LocalStore
from mirnet.storage.s3 import S3Store

MODEL = ModelRef("mirnet", "3", "run-1", "d" * 32 + ".dir", "c0ffee")
# images that fail by faults of the store are tried again, and kills from outside are not theirs
PARAMS = EnhanceParams(contact_images=0, max_bad_share=1.0, kill_attempts=100)

CONTEXT = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Order:
    """What a job does and suffers; seconds are from its start.

    Args:
        clock: ``time.time`` is off by so many seconds from then on: (after seconds, off by).
        disk_fault_rate: share of the syncs and renames that fail.
        has_child: suspects are enhanced in a child process, as with a real model.
    """

    number: int
    source: str
    target: str
    folder: Path
    settings: Settings
    variables: Mapping[str, str]
    seconds_an_image: float
    clock: tuple[tuple[float, float], ...]
    disk_fault_rate: float
    has_child: bool

    @property
    def journal(self) -> Path:
        return self.folder / f"{self.number:05d}.jsonl"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.number:05d}.log"


@dataclass(frozen=True, slots=True)
class Event:
    """A line of a journal.

    ``what``: ``taking`` and ``take``, ``renew``, ``releasing``, ``check`` (the lease allows a
    write), ``write`` (of an output), ``end``. ``term``: of the lease; 0 where there is none.
    """

    what: str
    begun: float
    ended: float
    term: int = 0
    text: str = ""


class Journal:
    """Appends events; each is one write, so that a killed job leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, begun: float, *, term: int = 0, text: str = "") -> None:
        line = json.dumps([what, begun, time.monotonic(), term, text])
        os.write(self._file, f"{line}\n".encode())


def read_journal(path: Path) -> list[Event]:
    """All events of a job; none if it was killed before the first."""
    if not path.exists():
        return []
    return [Event(*json.loads(line)) for line in path.read_text().splitlines()]


@dataclass(frozen=True)
class Double:
    """Stands in for the model: deterministic, and as slow as it is told."""

    seconds: float = 0.0

    def __call__(self, image: Image) -> Image:
        time.sleep(self.seconds)
        pixels = np.minimum(image.pixels.astype(np.uint32) * 2, np.iinfo(image.pixels.dtype).max)
        return replace(image, pixels=pixels.astype(image.pixels.dtype))


def start(order: Order) -> ForkServerProcess:
    """The process of a job."""
    process = CONTEXT.Process(target=_work, args=(order,))
    process.start()
    return process


def _work(order: Order) -> None:
    _redirect_output(order.log)
    journal = Journal(order.journal)
    _note_lease(journal)
    _note_writes(journal)
    _set_clock(order.clock)
    _break_disk(order.disk_fault_rate, seed=order.number)
    double = Double(order.seconds_an_image)
    # a lambda does not pickle, so that there is no child
    enhance = double if order.has_child else lambda image: double(image)
    begun = time.monotonic()
    try:
        with environment(**order.variables):
            result = run_batch(
                order.source,
                order.target,
                enhance=enhance,
                model=MODEL,
                params=PARAMS,
                settings=order.settings,
            )
    except MirnetError as error:
        journal.note("end", begun, text=f"{type(error).__name__}: {error}")
    except BaseException as error:
        journal.note("end", begun, text=f"raised {type(error).__name__}: {error}")
        raise
    else:
        text = "held off" if result.held_by else f"did {result.enhanced} of {result.planned}"
        journal.note("end", begun, text=text)


def _redirect_output(path: Path) -> None:
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.basicConfig(level=logging.INFO, format="%(relativeCreated)d %(name)s %(message)s")
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def _note_lease(journal: Journal) -> None:
    write, check = Lease._write, Lease.check

    def noted_write(self: Lease, entry: LeaseEntry, replaces: str | None) -> str | None:
        begun, is_first = time.monotonic(), entry.held_s == 0
        if entry.released:
            journal.note("releasing", begun, term=entry.term)
            return write(self, entry, replaces)
        if is_first:
            journal.note("taking", begun, term=entry.term)
        version = write(self, entry, replaces)
        if version is not None:
            journal.note("take" if is_first else "renew", begun, term=entry.term)
        return version

    def noted_check(self: Lease) -> None:
        begun = time.monotonic()
        check(self)
        journal.note("check", begun, term=self.entry.term)

    _patch(Lease, _write=noted_write, check=noted_check)


def _note_writes(journal: Journal) -> None:
    for kind in (LocalStore, S3Store):
        _patch(kind, put=_noted_put(kind.put, journal))


def _noted_put(put: Callable[..., str | None], journal: Journal) -> Callable[..., str | None]:
    def noted(self: Any, key: str, data: bytes, **options: Any) -> str | None:
        begun, metadata = time.monotonic(), options.get("metadata") or {}
        version = put(self, key, data, **options)
        if version is not None and "mirnet-output-digest" in metadata:
            term = int(metadata["mirnet-run-id"][:8])
            journal.note(
                "write", begun, term=term, text=f"{key} {metadata['mirnet-input-version']}"
            )
        return version

    return noted


def _set_clock(steps: tuple[tuple[float, float], ...]) -> None:
    """The wall clock of this process, not of the files that it writes."""
    real, offset = time.time, [0.0]

    def follow() -> None:
        begun = time.monotonic()
        for after_s, off_s in steps:
            time.sleep(max(0.0, begun + after_s - time.monotonic()))
            offset[0] = off_s

    _patch(time, time=lambda: real() + offset[0])
    if steps and steps[0][0] <= 0:
        offset[0] = steps[0][1]
    threading.Thread(target=follow, daemon=True).start()


def _break_disk(rate: float, *, seed: int) -> None:
    if not rate:
        return
    chance, lock = random.Random(seed), threading.Lock()

    def broken(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with lock:
                fails = chance.random() < rate
            if fails:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return function(*arguments, **options)

        return call

    _patch(os, fsync=broken(os.fsync), rename=broken(os.rename))


def _patch(owner: Any, **values: Any) -> None:
    for name, value in values.items():
        setattr(owner, name, value)
