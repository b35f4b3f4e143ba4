"""How reports of Ray Tune become rows: planned, points, and each way in which a trial ends."""

from __future__ import annotations

import pickle
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest

from mirnet.search.rows import EPOCHS, Rows, Trial
from mirnet.search.tuning import Halving, _Listener
from tests.search.made import trial


@pytest.fixture
def begun() -> Trial:
    return trial(3, state="running", steps=None, gmac=0.0)


@pytest.fixture
def listener(tmp_path: Path, begun: Trial) -> _Listener:
    return _Listener(Rows(tmp_path), {begun.key: begun}, Halving(), SimpleQueue())


def _rays(begun: Trial, **more: Any) -> SimpleNamespace:
    """A trial as Ray Tune has it."""
    return SimpleNamespace(trial_id="x1", config={"trial": begun.model_dump(mode="json")}, **more)


def _report(listener: _Listener, begun: Trial, *epochs: int) -> None:
    for epoch in epochs:
        point = {"epoch": epoch, "psnr": 10.0 + epoch, "ssim": 0.5, "seconds": 2.0 * epoch}
        listener.on_trial_result(0, [], _rays(begun), point)


def _row(listener: _Listener, begun: Trial) -> Trial:
    return listener.rows.trials()[begun.key]


def test_a_trial_that_is_planned_and_trained_is_done(listener: _Listener, begun: Trial) -> None:
    planned = {"steps": 40, "gmac": 2.5, "values": begun.values | {"preset": "p"}}
    listener.on_trial_result(0, [], _rays(begun), {"planned": planned})
    assert (_row(listener, begun).steps, _row(listener, begun).gmac) == (40, 2.5)
    assert _row(listener, begun).state == "running"
    _report(listener, begun, *range(1, EPOCHS + 1))
    listener.on_trial_complete(0, [], _rays(begun))
    done = _row(listener, begun)
    assert (done.state, done.psnr, done.seconds) == ("done", 14.0, 8.0)
    assert done.values["preset"] == "p"
    told = [listener.changes.get_nowait() for _ in range(listener.changes.qsize())]
    assert told[-1] == done and len(told) == 1 + EPOCHS + 1


def test_points_that_are_told_again_after_a_resume_count_once(
    listener: _Listener, begun: Trial
) -> None:
    _report(listener, begun, 1, 2, 1, 2, 3)
    assert [point.epoch for point in _row(listener, begun).points] == [1, 2, 3]


def test_only_what_the_scheduler_stopped_is_stopped(listener: _Listener, begun: Trial) -> None:
    _report(listener, begun, 1)
    # by the time: it goes on in the next call
    listener.on_trial_complete(0, [], _rays(begun))
    assert _row(listener, begun).state == "running"
    assert isinstance(listener.scheduler, Halving)
    listener.scheduler.stopped.add("x1")
    listener.on_trial_complete(0, [], _rays(begun))
    assert _row(listener, begun).state == "stopped"


def test_a_failure_keeps_its_reason(listener: _Listener, begun: Trial) -> None:
    listener.on_trial_result(0, [], _rays(begun), {"failed": "a loss is not finite"})
    listener.on_trial_complete(0, [], _rays(begun))
    failed = _row(listener, begun)
    assert (failed.state, failed.reason) == ("failed", "a loss is not finite")


@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("Traceback\n  lines\nout of memory\n"), "out of memory"), (None, "ended")],
)
def test_a_process_that_dies_fails_its_trial_alone(
    listener: _Listener, begun: Trial, error: Exception | None, reason: str
) -> None:
    listener.on_trial_error(0, [], _rays(begun, get_error=lambda: error))
    assert _row(listener, begun).state == "failed"
    assert reason in str(_row(listener, begun).reason)


def test_ray_may_pickle_it(listener: _Listener) -> None:
    assert pickle.dumps(listener)
