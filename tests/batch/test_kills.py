"""Kill -9 at random moments, jobs that race for one target, holders that sleep or die."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import threading
import time
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import pytest

from mirnet.batch.inflight import Alone, Inflight, suspects
from mirnet.batch.ledger import Ledger, RunFolder
from mirnet.batch.manifest import Row
from mirnet.batch.plan import WorkItem
from mirnet.batch.provenance import from_metadata
from mirnet.batch.run import preview, run_batch
from mirnet.config import Settings
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult
from mirnet.signals import advance, ask_to_stop, termination_as_exception
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectInfo, Store
from tests.batch.child import CONTEXT, start
from tests.batch.samples import MODEL, double, enhance_batch, fill, picture

PICTURES = {f"{number % 3}/{number:02d}.png": picture(number, side=24) for number in range(30)}
LEASE: dict[str, Any] = {"lease_s": 1.0, "flush_s": 0.1}
# of an operator, which may meet one image alone several times: they say nothing about the image
MANY_KILLS = 100


def undisturbed(source: str, target: str) -> EnhanceResult:
    return enhance_batch(
        source, target, Settings(lease_s=30), contact_images=0, kill_attempts=MANY_KILLS
    )


def when_free(source: str, target: str) -> EnhanceResult:
    """The run after the last holder's lease has run out."""
    for _ in range(100):
        result = undisturbed(source, target)
        if result.held_by is None:
            return result
        time.sleep(0.1)
    raise AssertionError(result.held_by)


def assert_sound(source: str, target: str) -> None:
    """Each input: one output, as of an undisturbed run, and one final row. Nothing else."""
    store, reference = open_store(target, Settings()), open_store(f"{target}-calm", Settings())
    undisturbed(source, f"{target}-calm")
    outputs = {i.key for i in store.list() if not i.key.startswith("_mirnet/")}
    inputs = {info.key: info.version for info in open_store(source, Settings()).list()}
    assert outputs == set(inputs)
    for key in inputs:
        assert store.get(key).data == reference.get(key).data
    final = {row.input_key: row for row in Ledger.of_target(store).past_runs().rows()}
    assert {key: row.input_version for key, row in final.items()} == inputs
    assert {row.status for row in final.values()} == {"enhanced"}
    assert {row.output_key for row in final.values()} == set(inputs)
    if not store.uri.startswith("s3://"):
        assert not list(Path(store.uri).rglob(".mirnet-part-*"))


@pytest.mark.parametrize(
    "num_kills", [4, pytest.param(30, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_kill_9_at_random_moments(
    num_kills: int, places: tuple[str, str], variables: dict[str, str]
) -> None:
    source, target = places
    fill(source, PICTURES)
    chance = random.Random(num_kills)
    num_killed = 0
    for number in range(num_kills * 6):
        if num_killed == num_kills:
            break
        fill(source, {f"late/{number}.png": picture(100 + number, side=24)})
        child = start(
            source,
            target,
            settings=LEASE,
            variables=variables,
            seconds_per_image=0.15,
            kill_attempts=MANY_KILLS,
        )
        child.join(timeout=chance.uniform(0.02, 1.2))
        with contextlib.suppress(ProcessLookupError):  # it may have ended: done, or held off
            os.kill(child.pid or 0, signal.SIGKILL)
        child.join()
        num_killed += child.exitcode == -signal.SIGKILL
        time.sleep(chance.choice([0.0, 0.6]))
    assert num_killed == num_kills
    result = when_free(source, target)
    assert result.planned == result.enhanced + result.skipped > len(PICTURES)
    assert_sound(source, target)


@pytest.mark.parametrize("had", ["nothing", "older outputs", "failed"])
def test_a_picture_that_kills_the_process_does_not_keep_the_others_waiting(
    had: str, places: tuple[str, str], variables: dict[str, str]
) -> None:
    """First all others that the dead run had not begun, then those of its hundred, then it."""
    source, target = places
    store = open_store(target, Settings())
    fill(source, {f"{n:02d}.png": picture(n, side=31 if n == 3 else 24) for n in range(40)})
    if had != "nothing":
        undisturbed(source, target)
        fill(source, {f"{n:02d}.png": picture(n + 50, side=24) for n in range(40) if n != 3})
        fill(source, {"03.png": picture(99, side=31)})
    if had == "failed":
        store.delete("03.png")
        fill(target, {"03.png": b"somebody's"})
        assert undisturbed(source, target).failed == 1
        store.delete("03.png")
        fill(source, {f"{n:02d}.png": picture(n + 150, side=24) for n in range(40) if n != 3})
    for night in range(3):
        fill(source, {f"new{night}.png": picture(300 + night, side=24)})
        child = start(source, target, settings={"lease_s": 30}, variables=variables, deadly_side=31)
        child.join()
        assert child.exitcode == -signal.SIGKILL
    inputs = {info.key: info.version for info in open_store(source, Settings()).list()}
    found = {
        i.key: from_metadata(head.metadata) for i in store.list() if (head := store.head(i.key))
    }
    made = {key: each.row.input_version for key, each in found.items() if each}
    del inputs["03.png"]
    assert {key: made.get(key) for key in inputs} == inputs
    # it has been found out; a limit is used up on all others first
    fill(source, {"one-more.png": picture(400, side=24)})
    ours: dict[str, Any] = {"model": MODEL, "params": EnhanceParams(), "settings": Settings()}
    with preview(source, target, **ours) as plan:
        items = list(plan)
    assert (items[-1].info.key, items[-1].suspect) == ("03.png", True)
    assert "one-more.png" in {item.info.key for item in items}
    with preview(source, target, **ours, limit=len(items) - 1) as plan:
        assert [item.info.key for item in plan] == [item.info.key for item in items[:-1]]
    # and a run that ended without it does not forget it
    fill(source, {"another.png": picture(401, side=24), "zz.png": picture(402, side=24)})
    run_batch(source, target, enhance=double, **ours, limit=1)
    with preview(source, target, **ours) as plan:
        assert [item.info.key for item in plan][-1] == "03.png"


def test_what_ends_in_good_order_leaves_no_suspects(
    places: tuple[str, str], settings: Settings
) -> None:
    source, target = places
    fill(source, PICTURES)

    def progress(done: int, _todo: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    store = open_store(f"{target}/_mirnet", settings)
    try:
        run_batch(
            source,
            target,
            enhance=double,
            model=MODEL,
            params=EnhanceParams(),
            settings=settings,
            progress=progress,
        )
    except KeyboardInterrupt:  # whoever still holds the exception holds nothing of the run
        assert suspects(Ledger(store).past_runs()) == {}
        assert not [t.name for t in threading.enumerate() if t.name.startswith("mirnet-io")]
    else:
        pytest.fail("it went on")
    undisturbed(source, target)
    assert not [info.key for info in store.list() if info.key.endswith("in-hand.json")]


def test_pictures_are_announced_before_they_begin(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), Settings())
    seen: list[tuple[str, int, bool]] = []

    def look(item: WorkItem) -> None:
        told = [key for key, _ in json.loads(store.get("in-hand.json").data)]
        seen.append((item.info.key, len(told), item.info.key in told))

    def process(items: Iterable[WorkItem]) -> Generator[Row]:
        kept: list[WorkItem] = []
        for item in items:
            look(item)
            if item.info.key in ("3", "7"):  # waits for images of its size
                kept.append(item)
                continue
            yield row_of(item)
        assert {item.info.key for item in kept} <= {*suspects_of(store)}
        yield from map(row_of, kept)

    def one_by_one(items: Iterable[WorkItem], alone: Alone) -> Generator[Row]:
        for item in items:
            with alone(item):
                look(item)
            assert store.head("in-hand.json") is None
            yield row_of(item)

    items = [
        WorkItem(ObjectInfo(f"{n}", 1, "v", 0.0), f"{n}", suspect=n >= 300) for n in range(303)
    ]
    inflight = Inflight(RunFolder(store), block=128)
    assert len(list(inflight.rows(items, process, one_by_one))) == 303
    assert all(announced for *_, announced in seen)
    numbers = [number for _, number, _ in seen]
    assert numbers == [128] * 128 + [130] * 128 + [46] * 44 + [1] * 3
    assert store.head("in-hand.json") is None
    with pytest.raises(MemoryError):
        list(Inflight(RunFolder(store), block=2).rows(items, broken, one_by_one))
    assert suspects_of(store) == ["0", "1"]


def test_the_latest_to_die_alone_goes_last(places: tuple[str, str], settings: Settings) -> None:
    """One that somebody killed by chance is not kept behind one that kills each run."""
    source, target = places
    fill(source, PICTURES)
    names = sorted(PICTURES)[:3]
    versions = {info.key: info.version for info in open_store(source, settings).list()}
    runs = open_store(f"{target}/_mirnet/runs", settings)
    ours: dict[str, Any] = {"model": MODEL, "params": EnhanceParams(), "settings": settings}
    for term, alone in enumerate([0, 1, 0, 2, 1], start=1):
        told = [[names[alone], versions[names[alone]]]]
        runs.put(f"{term:08d}-died/in-hand.json", json.dumps(told).encode())
    with preview(source, target, **ours) as plan:
        assert [item.info.key for item in plan][-3:] == [names[0], names[2], names[1]]


def test_an_interrupt_while_the_pictures_are_awaited_is_not_swallowed(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), Settings())

    def awaited(items: Iterable[WorkItem]) -> Generator[Row]:
        try:
            for item in items:
                yield row_of(item)
        finally:
            raise KeyboardInterrupt

    items = [WorkItem(ObjectInfo("a", 1, "v", 0.0), "a")]
    rows = Inflight(RunFolder(store), block=2).rows(items, awaited, none)
    next(rows)
    with pytest.raises(KeyboardInterrupt):
        rows.close()


def test_a_job_that_gave_up_for_lack_of_progress_leaves_suspects(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "run"), Settings())

    def slow(items: Iterable[WorkItem]) -> Generator[Row]:
        for item in items:
            ask_to_stop()
            yield row_of(item)
            advance()

    items = [WorkItem(ObjectInfo(f"{n}", 1, "v", 0.0), f"{n}") for n in range(2)]
    with pytest.raises(SystemExit), termination_as_exception():
        list(Inflight(RunFolder(store), block=2).rows(items, slow, none))
    assert suspects_of(store) == ["0", "1"]
    assert Settings(stuck_s=100).image_limit_s == 50
    assert Settings().image_limit_s == Settings().image_stuck_s


def row_of(item: WorkItem) -> Row:
    return Row(item.info.key, "v", 1, "enhanced", "r", "d", "m")


def none(_items: Iterable[WorkItem], _alone: Alone) -> Generator[Row]:
    yield from ()


def broken(items: Iterable[WorkItem]) -> Generator[Row]:
    yield from map(fails, items)


def fails(_: WorkItem) -> Row:
    raise MemoryError


def suspects_of(run: Store) -> list[str]:
    return [key for key, _ in json.loads(run.get("in-hand.json").data)]


@pytest.mark.parametrize("num_jobs", [pytest.param(2, marks=pytest.mark.slow), 4])
def test_jobs_at_once_on_one_target(
    num_jobs: int, places: tuple[str, str], variables: dict[str, str]
) -> None:
    source, target = places
    fill(source, PICTURES)
    answers = CONTEXT.Queue()
    settings = LEASE | {"lease_s": 30}
    jobs = [
        start(
            source,
            target,
            settings=settings,
            variables=variables,
            seconds_per_image=0.05,
            answers=answers,
        )
        for _ in range(num_jobs)
    ]
    results = [EnhanceResult.model_validate_json(answers.get(timeout=60)) for _ in jobs]
    for job in jobs:
        job.join()
    held = [result for result in results if result.held_by]
    assert len(held) == num_jobs - 1
    for result in held:
        assert "is at work on" in (result.held_by or "")
        assert result.planned == 0
    assert_sound(source, target)


def test_a_holder_that_slept_stops_and_harms_nothing(
    places: tuple[str, str], variables: dict[str, str]
) -> None:
    source, target = places
    fill(source, PICTURES)
    answers = CONTEXT.Queue()
    sleeper = start(
        source,
        target,
        settings=LEASE,
        variables=variables,
        seconds_per_image=0.1,
        answers=answers,
    )
    store = open_store(target, Settings())
    deadline = time.monotonic() + 60
    while not any(store.head(key) for key in list(PICTURES)[:3]) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(sleeper.pid or 0, signal.SIGSTOP)
    result = when_free(source, target)
    assert result.planned == len(PICTURES) == result.enhanced + result.skipped
    os.kill(sleeper.pid or 0, signal.SIGCONT)
    answer = answers.get(timeout=60)
    sleeper.join()
    assert answer.startswith("LeaseLost"), answer
    assert_sound(source, target)
