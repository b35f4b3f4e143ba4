"""Over Ray Data: the same outputs and the same manifest as on one machine."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from mirnet import stages
from mirnet.batch import ray_engine
from mirnet.batch.digests import Digests
from mirnet.batch.inflight import Alone
from mirnet.batch.ledger import Ledger, RunFolder
from mirnet.batch.manifest import KILLS, Row
from mirnet.batch.plan import WorkItem
from mirnet.batch.ray_engine import EnhanceActor, RayJob
from mirnet.batch.run import preview, run_batch
from mirnet.batch.run_config import BatchRunConfig
from mirnet.config import Settings
from mirnet.errors import ServiceError, StorageError, WorkersLost
from mirnet.images import Image
from mirnet.params import EnhanceParams, load_params
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectInfo
from tests.batch import killers, samples as batch_samples, sequences
from tests.batch.killers import DEADLY_SIDE, Killer
from tests.batch.samples import MODEL, UNGUARDED, darken, double, enhance_batch, fill, picture
from tests.batch.sequences import lift, sequence
from tests.small_models import make_model

PICTURES = {f"{number}.png": picture(number, side=24) for number in range(40)}
BAD = {"cut.png": picture(1)[:500], "text.jpg": b"no picture"}


@pytest.fixture
def by_value() -> Iterator[None]:
    """Workers do not have the folder of the tests on their path."""
    for module in (batch_samples, killers, sequences):
        ray.cloudpickle.register_pickle_by_value(module)
    yield
    for module in (batch_samples, killers, sequences):
        ray.cloudpickle.unregister_pickle_by_value(module)


def enhance(
    source: str, target: str, engine: str, model: Any = double, **params: Any
) -> EnhanceResult:
    settings = Settings(batch_engine=engine, lease_s=30)
    return enhance_batch(source, target, settings, enhance=model, contact_images=0, **params)


def manifest(target: str) -> dict[str, dict[str, Any]]:
    rows = [
        asdict(row) for row in Ledger.of_target(open_store(target, Settings())).past_runs().rows()
    ]
    assert len(rows) == len({row["input_key"] for row in rows})
    return {row["input_key"]: row | {"run_id": "", "seconds": 0} for row in rows}


def keys_of(uri: str) -> list[str]:
    return [info.key for info in open_store(uri, Settings()).list()]


def assert_same(target: str, other: str) -> None:
    rows = manifest(target)
    rows.pop("deadly.png", None)
    assert rows == manifest(other)
    store, reference = open_store(target, Settings()), open_store(other, Settings())
    for key in PICTURES:
        assert store.get(key).data == reference.get(key).data


def mortal(marker: Path) -> Any:
    killer = Killer("abort")

    def die_once(image: Image) -> Image:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return killer(image)

    return die_once


def test_same_as_on_one_machine_though_a_worker_is_killed(
    s3: str, by_value: None, tmp_path: Path
) -> None:
    """Once by chance, and each time by one image."""
    fill(f"{s3}/in", PICTURES | BAD)
    alone = enhance(f"{s3}/in", f"{s3}/alone", "local")
    fill(f"{s3}/in", {"deadly.png": picture(1, side=DEADLY_SIDE)})
    result = enhance(f"{s3}/in", f"{s3}/ray", "ray", mortal(tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    assert (result.enhanced, result.quarantined, result.failed) == (40, 2, 1)
    assert (alone.enhanced, alone.quarantined, alone.failed) == (40, 2, 0)
    deadly = manifest(f"{s3}/ray").pop("deadly.png")
    assert deadly["status"] == "failed" and deadly["reason"].startswith("died: 1 of 2 deaths: ")
    assert_same(f"{s3}/ray", f"{s3}/alone")
    assert not [key for key in keys_of(f"{s3}/ray/_mirnet") if "in-hand" in key]
    assert enhance(f"{s3}/in", f"{s3}/ray", "local").skipped == 42


def test_sources_and_links_are_told_apart_as_on_one_machine(by_value: None, tmp_path: Path) -> None:
    source, other, target = (str(tmp_path / name) for name in ("in", "other", "out"))
    fill(source, {"a.png": picture(1)})
    fill(other, {"a.png": picture(1)[:-1] + b"x", "b.png": picture(2)})
    (tmp_path / "other" / "c.png").symlink_to(tmp_path / "in" / "a.png")
    for folder in (source, other):
        os.utime(Path(folder) / "a.png", (1_700_000_000, 1_700_000_000))
    assert enhance(source, target, "local").enhanced == 1
    result = enhance(other, target, "ray", follow_links=True)
    assert (result.enhanced, result.failed, result.skipped) == (2, 1, 0)


@pytest.mark.slow
def test_a_sequence_is_as_even_as_on_one_machine(by_value: None, tmp_path: Path) -> None:
    """Its images are in several batches, of which each sees those before it by itself."""
    source, alone, target = (str(tmp_path / name) for name in ("in", "alone", "ray"))
    images = sequence() | sequence("later")
    fill(source, images)
    enhance(source, alone, "local", lift, even=True)
    enhance(source, target, "ray", lift, even=True)
    rows, shared = manifest(alone), manifest(target)
    for row in (*rows.values(), *shared.values()):
        row["output_version"] = ""  # of a file: with the time of writing
    assert rows == shared
    assert sum((row["evened"] or 0) != 0 for row in rows.values()) > 15
    for key in images:
        if rows[key]["status"] == "enhanced":
            assert Path(target, key).read_bytes() == Path(alone, key).read_bytes()


def test_workers_that_share_a_sequence_make_it_as_one_process_does(tmp_path: Path) -> None:
    """Each has seen its own batches only, the last ones first."""
    source, alone, target = (str(tmp_path / name) for name in ("in", "alone", "workers"))
    fill(source, sequence() | sequence("later"))
    enhance(source, alone, "local", lift, even=True)
    params, settings = EnhanceParams(contact_images=0, even=True), Settings()
    with preview(source, target, model=MODEL, params=params, settings=settings) as plan:
        items = [json.dumps(asdict(item)) for item in plan]
    config = BatchRunConfig(MODEL.label, Digests.of(params).output)
    job = RayJob(source, target, MODEL, params, "00000001-workers", settings, config)
    workers = [EnhanceActor(job, lift) for _ in range(2)]
    for number, start in enumerate(reversed(range(0, len(items), 7))):
        rows = workers[number % 2]({"item": items[start : start + 7]})["row"]
        assert {json.loads(row)["status"] for row in rows} <= {"enhanced", "quarantined"}
    made = [key for key in keys_of(source) if not key.endswith("-c.png")]
    assert len(made) == 26
    for key in made:
        assert Path(target, key).read_bytes() == Path(alone, key).read_bytes()


@pytest.mark.slow
def test_workers_judge_what_they_write(by_value: None, tmp_path: Path) -> None:
    """Also what a worker kept of a rejected output is on the driver's page."""
    source, target = tmp_path / "in", tmp_path / "out"
    fill(str(source), {f"{number}.png": picture(number, side=24) for number in range(3)})
    result = run_batch(
        str(source),
        str(target),
        enhance=darken,
        model=MODEL,
        params=EnhanceParams(harm_min_images=1),
        settings=Settings(batch_engine="ray", lease_s=30),
    )
    assert (result.enhanced, result.passed_through, result.harm) == (0, 3, {"darker": 3})
    assert result.harmful
    for number in range(3):
        assert (target / f"{number}.png").read_bytes() == picture(number, side=24)
    page = (target / "_mirnet/runs" / result.run_id / "contact.html").read_text()
    rejected = page.partition("Left unchanged by the safety checks")[2].partition("<h2>")[0]
    assert rejected.count("<img") == 6


@pytest.mark.slow
def test_two_nodes_one_of_which_dies(s3: str, by_value: None) -> None:
    fill(f"{s3}/in", PICTURES | BAD)
    enhance(f"{s3}/in", f"{s3}/alone", "local")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        second = cluster.add_node(num_cpus=2)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        removed = False

        def progress(done: int, total: int) -> None:
            nonlocal removed
            if done > 10 and not removed:
                cluster.remove_node(second, allow_graceful=False)
                removed = True

        def slowly(image: Image) -> Image:
            time.sleep(0.2)
            return double(image)

        result = run_batch(
            f"{s3}/in",
            f"{s3}/ray",
            enhance=slowly,
            model=MODEL,
            params=EnhanceParams(contact_images=0),
            settings=Settings(batch_engine="ray", lease_s=30),
            progress=progress,
        )
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert removed
    assert (result.enhanced, result.quarantined, result.failed) == (40, 2, 0)
    assert_same(f"{s3}/ray", f"{s3}/alone")


@pytest.mark.slow
def test_a_real_network_gives_the_same_bytes_on_ray(s3: str, tmp_path: Path) -> None:
    """Also of an image of another size, and beside images that are none."""
    make_model(tmp_path / "model", seed=0)
    fill(f"{s3}/in", PICTURES | BAD | {"large.png": picture(77, side=300)})

    overrides = ("enhance.contact_images=0", *(f"enhance.{name}=null" for name in UNGUARDED))

    def night(target: str, engine: str) -> None:
        settings = Settings(
            workspace=tmp_path / "workspace",
            reports_dir=tmp_path / "reports",
            batch_engine=engine,
            ray_address="in-process",
        )
        run = stages.RunConfig(load_params("demo", overrides=overrides), settings)
        result = stages.enhance(f"{s3}/in", target, run, model=str(tmp_path / "model"))
        assert (result.enhanced, result.quarantined, result.failed) == (41, 2, 0)

    night(f"{s3}/alone", "local")
    night(f"{s3}/ray", "ray")
    assert_same(f"{s3}/ray", f"{s3}/alone")
    one, other = (open_store(f"{s3}/{name}", Settings()) for name in ("ray", "alone"))
    assert one.get("large.png").data == other.get("large.png").data


@pytest.mark.slow
@pytest.mark.parametrize("how", ["abort", "memory", "loop", "device"])
def test_an_image_that_kills_each_worker_costs_itself_only(
    how: str, tmp_path: Path, by_value: None
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES | BAD | {"deadly.png": picture(1, side=DEADLY_SIDE)})
    settings = Settings(
        batch_engine="ray", lease_s=30, image_stuck_s=3, child_memory_gib=0.6, flush_s=0.1
    )
    marker, killer = tmp_path / "killed", Killer(how)

    def kills(image: Image) -> Image:
        if how == "memory" and image.pixels.shape[0] == DEADLY_SIDE and not marker.exists():
            marker.touch()  # the memory of a worker has no limit
            os.kill(os.getpid(), signal.SIGKILL)
        return killer(image)

    result = enhance_batch(source, target, settings, enhance=kills, max_bad_share=0.1)
    assert (result.enhanced, result.quarantined, result.failed) == (40, 2, 1)
    word = "memory" if how == "memory" else "died"
    assert result.reasons[word] == 1 and result.summary_uri and result.contact_uri
    assert manifest(target)["deadly.png"]["status"] == "failed"
    again = enhance_batch(source, target, settings, enhance=kills)
    # a limit that is too low for a healthy image condemns none
    given_up = int(how != "memory")
    assert (again.skipped, again.failed, again.quarantined) == (42, 1 - given_up, given_up)
    assert again.reasons == {KILLS if given_up else "memory": 1}


@pytest.mark.slow
def test_what_a_lost_run_had_in_flight_is_suspect_on_one_machine_too(
    tmp_path: Path, by_value: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = str(tmp_path / "in"), str(tmp_path / "out")
    fill(source, PICTURES | {"deadly.png": picture(1, side=DEADLY_SIDE)})
    with monkeypatch.context() as patched:
        patched.setattr(ray_engine, "_RESTARTS", 0)
        with pytest.raises(WorkersLost, match="Ray Data"):
            enhance(source, target, "ray", Killer("kill"))
    result = enhance(source, target, "local", Killer("abort"))
    assert (result.quarantined, result.failed, result.reasons) == (0, 1, {"died": 1})
    assert result.enhanced + result.skipped == 40


def test_each_attempt_at_a_batch_knows_what_died(tmp_path: Path) -> None:
    run = RunFolder(open_store(str(tmp_path / "run"), Settings()))
    inputs = [("a", "1"), ("b", "2")]
    first, died = run.begin_attempt("0f", inputs)
    assert died == []
    second, died = run.begin_attempt("0f", inputs)
    assert died == [inputs]
    run.write_inflight(inputs[1:], attempt=second)
    third, died = run.begin_attempt("0f", inputs)
    assert died == [inputs, inputs[1:]]
    assert len({first, second, third}) == 3
    assert run.begin_attempt("aa", inputs[:1])[1] == []
    run.clear_all_inflight()
    assert run.begin_attempt("0f", inputs)[1] == []


def test_a_lost_response_of_an_announcement_is_no_death(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(str(tmp_path / "run"), Settings())
    run, put = RunFolder(store), type(store).put

    def repeated(*args: Any, **options: Any) -> str | None:
        assert put(*args, **options) is not None
        return put(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(type(store), "put", repeated)
        first, died = run.begin_attempt("0f", [("a", "1")])
    assert died == []
    again, died = run.begin_attempt("0f", [("a", "1")])
    assert again != first and died == [[("a", "1")]]


BATCH_OF_A = hashlib.sha256(json.dumps([["a", "1"]]).encode()).hexdigest()[:16]


class NoChild:
    """In place of the suspects: what was announced when they came, and while they are worked on."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.items, self.open = run, list[WorkItem](), False
        self.seen: list[list[list[tuple[str, str]]]] = []

    def rows(self, items: Iterable[WorkItem], alone: Alone) -> Iterator[Row]:
        self.open = True
        for item in items:
            self.items.append(item)
            self.look()
            with alone(item):
                self.look()
            yield Row(item.info.key, item.info.version, 1, "enhanced", "r", "d", "m")

    def look(self) -> None:
        names = [info.key for info in self.run.store.list()]
        self.seen.append([each for each in self.run.inflight(names) if each])

    def close(self) -> None:
        self.open = False


def opened(tmp_path: Path) -> tuple[ray_engine.OpenedJob, NoChild]:
    run = RunFolder(open_store(str(tmp_path / "run"), Settings()))
    suspects = NoChild(run)
    nothing: Any = None
    job: Any = ray_engine.OpenedJob
    return job(nothing, run, suspects, Settings()), suspects


def item(key: str, *, suspect: bool) -> WorkItem:
    return WorkItem(ObjectInfo(key, 1, "1", 0.0), key, suspect=suspect)


def test_suspects_are_announced_while_they_are_worked_on_only(tmp_path: Path) -> None:
    job, suspects = opened(tmp_path)
    assert len(list(job.rows([item("a", suspect=True)]))) == 1
    assert suspects.seen == [[], [[("a", "1")]]]
    assert not suspects.open  # with it, the model of its child


def test_a_worker_dies_of_an_image_once_per_run(tmp_path: Path) -> None:
    job, suspects = opened(tmp_path)
    attempt, _ = job.run.begin_attempt(BATCH_OF_A, [])
    job.run.write_inflight([("a", "1")], attempt=attempt)  # and the worker died
    assert len(list(job.rows([item("a", suspect=True)]))) == 1
    (seen,) = suspects.items
    assert (seen.deaths, seen.died) == (1, True)


def test_a_batch_of_one_image_is_tried_in_a_child_first(tmp_path: Path) -> None:
    job, suspects = opened(tmp_path)
    job.run.begin_attempt(BATCH_OF_A, [("a", "1")])  # and the worker died, e.g. with its node
    assert len(list(job.rows([item("a", suspect=False)]))) == 1
    (seen,) = suspects.items
    assert (seen.suspect, seen.deaths, seen.died) == (True, 0, False)


@pytest.mark.parametrize("kind", [StorageError, ServiceError])
def test_an_error_of_a_service_in_a_worker_is_that_of_the_run(kind: type[ServiceError]) -> None:
    class Refused:
        def rows(self, _items: list[WorkItem]) -> Iterator[Row]:
            raise kind("MLflow at x: refused", transient=False)

    actor: Any = object.__new__(ray_engine.EnhanceActor)
    actor._job = Refused()
    (text,) = actor({"item": []})["row"]
    with pytest.raises(ServiceError, match="refused") as raised:
        ray_engine._load_row(text)
    assert type(raised.value) is kind and not raised.value.transient


@pytest.mark.slow
def test_what_stops_a_run_comes_through_as_it_was(s3: str, by_value: None) -> None:
    fill(f"{s3}/in", PICTURES)

    def lock_out(image: Image) -> Image:
        raise StorageError("s3://b: access denied", transient=False)

    with pytest.raises(StorageError, match="access denied"):
        enhance(f"{s3}/in", f"{s3}/ray", "ray", lock_out)
