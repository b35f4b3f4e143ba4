"""What a Ray worker does with errors, uploads and words; without a Ray."""

from __future__ import annotations

import logging
import os
import shutil
from contextlib import nullcontext
from pathlib import Path
from threading import Timer
from types import SimpleNamespace

import pytest
import ray.train
import torch

from mirnet.errors import StorageError, TrainingError
from mirnet.params import load_params
from mirnet.results import LogLine
from mirnet.training.ray import launcher
from mirnet.training.ray.launcher import RayContext, _worker, workers_for


class Context:
    world_size = 2

    def __init__(self, *_: object, **__: object) -> None: ...

    def share_cores(self) -> None: ...

    def log_to_driver(self):
        return nullcontext()


@pytest.fixture
def work(monkeypatch):
    """Run a worker whose training ends with this error."""
    monkeypatch.setattr(launcher, "RayContext", Context)

    def run(error: Exception) -> dict[str, object]:
        def fit(*_: object) -> None:
            raise error

        monkeypatch.setattr(launcher, "fit", fit)
        return _worker(
            {"event_queue": None, "emit_events": True, "job": SimpleNamespace(open=lambda: None)}
        )

    return run


def test_an_error_of_all_workers_is_returned_and_one_of_this_worker_alone_is_raised(work):
    """Ray then replaces the others, which would wait for this one without an end."""
    assert work(TrainingError("not finite")) == {"error": "not finite", "num_workers": 2}
    with pytest.raises(StorageError, match="disk full"):
        work(StorageError("disk full"))
    too_large = TrainingError("out of memory: lower train.batch_size or train.patch_size")
    too_large.__cause__ = torch.OutOfMemoryError("CUDA out of memory")
    with pytest.raises(TrainingError, match=r"lower train\.batch_size"):
        work(too_large)


def context(rank: int = 0, event_queue: object = None) -> RayContext:
    made = RayContext.__new__(RayContext)
    made.rank, made._event_queue, made._uploading = rank, event_queue, None
    return made


def test_a_checkpoint_waits_for_the_upload_of_the_one_before(tmp_path, monkeypatch):
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    reported: list[Path] = []

    def report(_metrics: object, *, checkpoint: ray.train.Checkpoint, **_: object) -> None:
        assert [f.exists() for f in reported] == [False] * len(reported)
        reported.append(Path(checkpoint.path))

    monkeypatch.setattr(ray.train, "report", report)
    worker = context()
    worker.report(None, folders[0])
    Timer(0.3, shutil.rmtree, [folders[0]]).start()  # as Ray does after the upload
    worker.report(None, folders[1])
    assert reported == folders


@pytest.mark.parametrize(("rank", "heard"), [(0, ["going on at step 7"]), (1, [])])
def test_the_first_worker_says_what_it_logs(rank, heard):
    lines: list[LogLine] = []
    worker = context(rank, SimpleNamespace(put_nowait=lines.append))
    level = logging.getLogger("mirnet").level
    try:
        with worker.log_to_driver():
            logging.getLogger("mirnet.training.loop").info("going on at step %d", 7)
    finally:
        logging.getLogger("mirnet").setLevel(level)
    assert [line.message for line in lines] == heard


@pytest.mark.parametrize(
    ("offered", "workers", "threads"), [(1.0, 1, 1), (8.0, 2, 4), (64.0, 1, 16), (0.0, 1, 1)]
)
def test_workers_share_the_cores_that_their_node_offers(monkeypatch, offered, workers, threads):
    """Two nodes with one core each on one machine are not two workers on all of its cores."""
    nodes = [{"NodeID": "a", "Resources": {"CPU": 99.0}}, {"NodeID": "b", "Resources": {}}]
    nodes[1]["Resources"] = {"CPU": offered} if offered else {}
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    here = SimpleNamespace(get_node_id=lambda: "b")
    monkeypatch.setattr(ray, "get_runtime_context", lambda: here)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(16))
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    worker = context()
    worker._local_world_size = workers
    worker.share_cores()
    assert chosen == [threads]


def test_fewer_gpus_than_workers_make_as_many_workers_as_divide_the_batch():
    recipe = load_params(
        "cpu-mirnet", overrides=("train.batch_size=8", "train.progressive=[]")
    ).train
    assert [workers_for(gpus, recipe) for gpus in (1, 2, 3, 7)] == [1, 2, 2, 4]
    smaller = [{"start": 0.5, "patch_size": 32, "batch_size": 6}]
    stages = load_params(
        "cpu-mirnet", overrides=("train.batch_size=8", f"train.progressive={smaller}")
    )
    assert workers_for(7, stages.train) == 2
