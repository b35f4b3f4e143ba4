"""A plan and a close that take long get on all the while, and may be left at any key."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from mirnet.batch import contact_sheet, rejected, run_record
from mirnet.batch.inflight import suspects
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.images import Image
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.signals import termination_as_exception
from mirnet.storage.local import LocalStore
from mirnet.storage.places import open_store
from mirnet.storage.s3 import S3Store
from mirnet.storage.store import ObjectInfo
from tests.batch.samples import MODEL, double, fill, picture

PICTURES = {f"{n}.png": picture(n) for n in range(6)}


def enhance(
    source: str, target: str, *, by: Callable[[Image], Image] = double, **settings: Any
) -> EnhanceResult:
    return run_batch(
        source,
        target,
        enhance=by,
        model=MODEL,
        params=EnhanceParams(),
        settings=Settings(**settings),
    )


def is_released(target: str) -> bool:
    told = json.loads(open_store(target, Settings()).get("_mirnet/lease.json").data)
    return bool(told["released"])


def at_each_listed(
    monkeypatch: pytest.MonkeyPatch, root: str, do: Callable[[ObjectInfo], None]
) -> None:
    """Do something after each image that a listing of this place gives."""
    for kind in (LocalStore, S3Store):
        old = kind.list

        def listed(self: Any, prefix: str = "", *, old: Any = old) -> Iterator[ObjectInfo]:
            for info in old(self, prefix):
                if self.uri == root and info.key in PICTURES:
                    do(info)
                yield info

        monkeypatch.setattr(kind, "list", listed)


def stop(*_: object) -> None:
    signal.raise_signal(signal.SIGTERM)


def test_a_plan_that_takes_longer_than_stuck_s(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    assert enhance(*places).enhanced == 6
    for place in places:
        at_each_listed(monkeypatch, place, lambda _: time.sleep(0.3))
    begun = time.monotonic()
    result = enhance(*places, lease_s=0.4, stuck_s=1.2, stop_s=60)
    assert time.monotonic() - begun > 3.6
    assert (result.skipped, result.held_by) == (6, None)


@pytest.mark.parametrize("which", [0, 1], ids=["source", "target"])
def test_sigterm_while_a_place_is_listed(
    which: int, places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    enhance(*places)
    seen: list[str] = []

    def at(info: ObjectInfo) -> None:
        seen.append(info.key)
        if len(seen) == 3:
            stop()

    at_each_listed(monkeypatch, places[which], at)
    with pytest.raises(SystemExit) as caught:
        enhance(*places)
    assert caught.value.code == 143
    assert len(seen) == 3
    assert is_released(places[1])


def test_sigterm_while_the_page_is_made(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    seen: list[str] = []

    def small(image: Any, old: Any = rejected.small_jpeg) -> bytes:
        seen.append("one")
        stop()
        jpeg: bytes = old(image)
        return jpeg

    monkeypatch.setattr(contact_sheet, "small_jpeg", small)
    with pytest.raises(SystemExit):
        enhance(*places)
    assert len(seen) == 1
    assert is_released(places[1])


def test_sigterm_while_the_manifest_is_written(
    places: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(places[0], PICTURES)
    seen: list[bytes] = []

    def slowly(image: Image) -> Image:
        time.sleep(0.03)
        return double(image)

    def append(self: Any, part: bytes) -> None:
        seen.append(part)
        stop()

    with monkeypatch.context() as patch:
        patch.setattr(run_record._Shard, "append", append)
        with pytest.raises(SystemExit):
            enhance(*places, by=slowly, flush_s=0.01, io_threads=1)
    assert len(seen) == 1
    assert is_released(places[1])
    assert enhance(*places).skipped == 6  # the parts tell what was done


def test_sigterm_among_folders_without_files(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    store = open_store(str(tmp_path), Settings())
    for search in (store.sweep, lambda: list(store.list())):
        with pytest.raises(SystemExit), termination_as_exception():
            stop()
            search()
            pytest.fail("unreachable")


class Cancelled(BaseException):
    """As Prefect's, which is neither a SystemExit nor an Exception."""


def test_what_is_raised_in_place_of_sigterm_leaves_nothing_in_hand(
    places: tuple[str, str],
) -> None:
    fill(places[0], PICTURES)

    def cancel(_number: int, _frame: FrameType | None) -> None:
        raise Cancelled

    def model(image: Image) -> Image:
        stop()
        return double(image)

    before = signal.signal(signal.SIGTERM, cancel)
    try:
        with pytest.raises(Cancelled):
            enhance(*places, by=model, io_threads=1)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert suspects(Ledger(open_store(f"{places[1]}/_mirnet", Settings())).past_runs()) == {}
    assert is_released(places[1])
