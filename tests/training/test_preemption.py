"""A node that is told that it will go, and goes: what clouds do with cheap machines."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.cluster_utils import Cluster

from mirnet.config import Settings
from tests.training.children import Children, as_overrides, wait_until

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head without room for workers, and one node."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def drain(cluster: Cluster, node_id: str, *, seconds: int) -> None:
    """As the watcher of a cloud's notice does."""
    subprocess.run(
        [
            *(str(Path(sys.executable).with_name("ray")), "drain-node"),
            *("--address", cluster.address, "--node-id", node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "taken back"),
            *("--deadline-remaining-seconds", str(seconds)),
        ],
        check=True,
        capture_output=True,
    )


def test_training_goes_on_elsewhere_from_the_last_checkpoint(
    cluster: Cluster,
    children: Children,
    train,
    small_params,
    settings: Settings,
    in_process: Settings,
):
    cheap = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    place = settings.model_copy(update={"ray_address": cluster.address, "num_workers": "2"})
    params = small_params(
        "train.num_epochs=5", "train.steps_per_epoch=60", "train.checkpoint_every=5"
    )
    child = children.start(as_overrides(params), place, "preempted")
    snapshots = settings.workspace / "training" / "preempted"
    wait_until(lambda: len(list(snapshots.glob("checkpoint_*"))) == 2, child)
    drain(cluster, cheap.node_id, seconds=3)
    cluster.add_node(num_cpus=2)
    cluster.remove_node(cheap, allow_graceful=True)
    assert child.wait(timeout=300) == 0
    result = train(params, place, run_name="preempted")  # only reads it
    whole = train(params, in_process, run_name="whole")
    assert [m.epoch for m in result.history] == list(range(5))
    for one, two in zip(whole.history, result.history, strict=True):
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-3)
