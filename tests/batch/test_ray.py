"""Over Ray Data: the same outputs and the same manifest as on one machine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from ray.cluster_utils import Cluster

from mirnet import stages
from mirnet.batch.ledger import Ledger
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import ServiceError, StorageError
from mirnet.images import Image
from mirnet.models import build, save_model
from mirnet.params import EnhanceParams, load_params
from mirnet.results import EnhanceResult
from mirnet.storage.places import open_store
from tests.batch import samples as batch_samples
from tests.batch.samples import MODEL, UNGUARDED, darken, double, enhance_batch, fill, picture

PICTURES = {f"{number}.png": picture(number, side=24) for number in range(40)}
BAD = {"cut.png": picture(1)[:500], "text.jpg": b"no picture"}


@pytest.fixture
def by_value() -> Iterator[None]:
    """Workers do not have the folder of the tests on their path."""
    ray.cloudpickle.register_pickle_by_value(batch_samples)
    yield
    ray.cloudpickle.unregister_pickle_by_value(batch_samples)


def enhance(
    source: str, target: str, engine: str, model: Any = double, **params: Any
) -> EnhanceResult:
    settings = Settings(batch_engine=engine, lease_s=30)  # type: ignore[arg-type]
    return enhance_batch(source, target, settings, enhance=model, contact_images=0, **params)


def manifest(target: str) -> dict[str, dict[str, Any]]:
    rows = [
        asdict(row) for row in Ledger.of_target(open_store(target, Settings())).past_runs().rows()
    ]
    assert len(rows) == len({row["input_key"] for row in rows})
    return {row["input_key"]: row | {"run_id": "", "seconds": 0} for row in rows}


def assert_same(target: str, other: str) -> None:
    assert manifest(target) == manifest(other)
    store, reference = open_store(target, Settings()), open_store(other, Settings())
    for key in PICTURES:
        assert store.get(key).data == reference.get(key).data


def mortal(marker: Path) -> Any:
    def die_once(image: Image) -> Image:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return double(image)

    return die_once


def test_same_as_on_one_machine_though_a_worker_is_killed(
    s3: str, by_value: None, tmp_path: Path
) -> None:
    fill(f"{s3}/in", PICTURES | BAD)
    alone = enhance(f"{s3}/in", f"{s3}/alone", "local")
    result = enhance(f"{s3}/in", f"{s3}/ray", "ray", mortal(tmp_path / "killed"))
    assert (tmp_path / "killed").exists()
    assert (result.enhanced, result.quarantined, result.failed) == (40, 2, 0)
    assert (alone.enhanced, alone.quarantined, alone.failed) == (40, 2, 0)
    assert_same(f"{s3}/ray", f"{s3}/alone")
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
    rejected = page.partition("Kept as they were")[2].partition("<h2>")[0]
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
    """Also of a picture of another size, and beside pictures that are none."""
    torch.manual_seed(0)
    save_model(build("mirnet-xs", n_feat=8), tmp_path / "model")
    fill(f"{s3}/in", PICTURES | BAD | {"large.png": picture(77, side=300)})

    overrides = ("enhance.contact_images=0", *(f"enhance.{name}=null" for name in UNGUARDED))

    def night(target: str, engine: str) -> None:
        settings = Settings(
            workspace=tmp_path / "workspace",
            reports_dir=tmp_path / "reports",
            batch_engine=engine,  # type: ignore[arg-type]
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
def test_a_picture_that_kills_each_worker_ends_the_run(s3: str, by_value: None) -> None:
    fill(f"{s3}/in", PICTURES | {"deadly.png": picture(1, side=31)})

    def die(image: Image) -> Image:
        if image.pixels.shape[0] == 31:
            os.kill(os.getpid(), signal.SIGKILL)
        return double(image)

    with pytest.raises(ServiceError, match="Ray Data"):
        enhance(f"{s3}/in", f"{s3}/ray", "ray", die)
    assert enhance(f"{s3}/in", f"{s3}/ray", "local").failed == 0


@pytest.mark.slow
def test_what_stops_a_run_comes_through_as_it_was(s3: str, by_value: None) -> None:
    fill(f"{s3}/in", PICTURES)

    def lock_out(image: Image) -> Image:
        raise StorageError("s3://b: access denied", transient=False)

    with pytest.raises(StorageError, match="access denied"):
        enhance(f"{s3}/in", f"{s3}/ray", "ray", lock_out)
