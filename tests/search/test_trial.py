"""One trial without Ray: its steps are planned by measurement, and it resumes with its points."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from pyarrow import fs

from mirnet.config import Settings
from mirnet.errors import DataError, TrainingError
from mirnet.params import Params
from mirnet.search import trial as trials
from mirnet.search.rows import EPOCHS, Point
from mirnet.search.trial import checkpoints, chosen_pairs, outputs_of, planned, train
from mirnet.training import TrainRequest
from mirnet.training.job import Job
from mirnet.training.launch import load_job
from tests.search.made import plan, trial, values


@pytest.fixture
def job(
    pairs_dir: Path,
    train_ids: tuple[str, ...],
    val_ids: tuple[str, ...],
    small_params: Callable[..., Params],
    tmp_path: Path,
) -> Job:
    return load_job(
        TrainRequest(
            root=pairs_dir,
            train_ids=train_ids,
            val_ids=val_ids,
            params=small_params(),
            settings=Settings(workspace=tmp_path),
            digest="d1",
            run_name="search-1",
            model_dir=tmp_path,
        )
    )


def test_as_many_steps_are_planned_as_fit(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "_measured", lambda *_: (0.5, 0.25))
    monkeypatch.setattr(trials, "seconds_of_pass", lambda _: 0.48)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    first = trial(1, values=values(job.params), state="running", steps=None)
    found = planned(first, plan(trial_s=28.0), job)
    # 4 validations of 3 images are 3 s, and the rest is 50 steps, in 4 equal epochs
    assert found.steps == 48
    assert found.values["train"]["num_epochs"] == EPOCHS
    assert found.values["train"]["steps_per_epoch"] == 12
    assert found.seconds_per_megapixel == pytest.approx(2.0)
    assert found.parameters > 0 and found.gmac > 0
    with pytest.raises(TrainingError, match=r"too slow: 18 steps of 0\.50 s"):
        planned(first, plan(trial_s=12.0), job)


def test_a_patch_larger_than_a_pair_is_named(job: Job, small_params: Callable[..., Params]) -> None:
    large = trial(1, values=values(small_params("train.patch_size=64")), steps=None)
    with pytest.raises(DataError, match=r"1\.png"):
        planned(large, plan(), job)


def test_a_trial_goes_on_and_tells_its_earlier_points_again(job: Job, tmp_path: Path) -> None:
    step_s, image_s = trials._measured(job.params, job)
    assert step_s > 0 and image_s > 0
    recipe = values(job.params)
    short = trials.with_recipe(recipe, num_epochs=EPOCHS, steps_per_epoch=2)
    first = trial(1, values=short, state="running", steps=8)
    store = checkpoints(fs.LocalFileSystem(), str(tmp_path), plan(), first)
    told: list[Point] = []

    def interrupt(point: Point) -> None:
        told.append(point)
        if point.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(first, job, store, interrupt)
    again: list[Point] = []
    train(first, job, store, again.append)
    assert [point.epoch for point in again] == [1, 2, 3, 4]
    assert again[:2] == told
    # of a finished one as well
    once_more: list[Point] = []
    train(first, job, store, once_more.append)
    assert once_more == again

    pairs = chosen_pairs(job.val, 2)
    assert pairs.names == (job.val.names[0], job.val.names[2])
    outputs = outputs_of(first, plan(), pairs, fs.LocalFileSystem(), str(tmp_path))
    assert [image.shape for image in outputs] == [pairs.pair(i)[0].shape for i in range(2)]
