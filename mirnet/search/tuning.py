"""Trials on Ray Tune: placed by their resources, and stopped early by successive halving (ASHA).

Ray Tune's own state is not kept: rows are (:mod:`mirnet.search.rows`), and the checkpoints of the
loop. A later call tells the scheduler the points of ended trials, and goes on with the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from threading import Thread
from types import SimpleNamespace
from typing import Any

import ray
import ray.exceptions
from pyarrow import fs
from ray import tune
from ray.tune.error import TuneError
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from mirnet.config import Settings, apply_engine_defaults
from mirnet.errors import MirnetError, TrainingError, last_line
from mirnet.search.rows import DEFAULT, EPOCHS, Plan, Point, Rows, Trial
from mirnet.search.trial import checkpoints, planned, train, use_threads
from mirnet.signals import stop_if_asked
from mirnet.storage.arrow import open_filesystem
from mirnet.training.job import Job
from mirnet.training.ray.nodes import check_shared
from mirnet.training.ray.shared_job import SharedJob, share_job

logger = logging.getLogger(__name__)

REDUCTION = 2
"""At each validation the better half goes on."""
_POLL_S = 0.2
_ENVIRONMENT = {
    # its own files of results; we have rows
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # a trial whose time is up would otherwise be waited for to its next validation
    "TUNE_FORCE_TRIAL_CLEANUP_S": "2",
    # a trial reports what it measured before it has a score
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Tuning:
    """What all trials of a search share; within a :func:`mirnet.ray_session.ray_session`."""

    plan: Plan
    settings: Settings
    filesystem: fs.FileSystem
    path: str
    shared: SharedJob
    resources: dict[str, float]

    @classmethod
    def prepare(cls, plan: Plan, job: Job, settings: Settings) -> Tuning:
        """Send the data to the nodes.

        Raises:
            UsageError: a node does not see the checkpoint store.
        """
        apply_engine_defaults(**_ENVIRONMENT)
        filesystem, path = open_filesystem(settings)
        check_shared(filesystem, path)
        has_gpu = ray.cluster_resources().get("GPU", 0) >= 1
        resources = {"cpu": float(plan.threads)} | ({"gpu": 1.0} if has_gpu else {})
        shared = share_job(job, settings, filesystem, path)
        return cls(plan, settings, filesystem, path, shared, resources)

    @property
    def num_slots(self) -> int:
        """Trials that run at the same time; at least one."""
        there = ray.cluster_resources()
        names = {"cpu": "CPU", "gpu": "GPU"}
        return max(1, min(int(there.get(names[k], 0) / n) for k, n in self.resources.items()))

    def run(
        self, trials: Sequence[Trial], rows: Rows, *, seconds: float, halving: bool
    ) -> Iterator[Trial | None]:
        """Run trials in their order until all have ended or the time is up; their rows are saved.

        Yields a trial after each change, and None while nothing changes.

        Args:
            halving: stop the weaker half at each validation, the default excepted; ended trials
                among the rows count.

        Raises:
            TrainingError: Ray lost the search.
        """
        changes: SimpleQueue[Trial] = SimpleQueue()
        scheduler = _scheduler(rows, halving=halving)
        listener = _Listener(rows, {t.key: t for t in trials}, scheduler, changes)
        tuner = tune.Tuner(
            tune.with_resources(
                tune.with_parameters(
                    _trainable, given=_Given(self.plan, self.settings, self.shared)
                ),
                self.resources,
            ),
            param_space={"trial": tune.grid_search([t.model_dump(mode="json") for t in trials])},
            tune_config=tune.TuneConfig(
                scheduler=scheduler,
                time_budget_s=max(seconds, 1.0),
                reuse_actors=True,
                trial_dirname_creator=lambda trial: str(trial.trial_id),
            ),
            run_config=tune.RunConfig(
                name=self._scratch,
                storage_path=self.path,
                storage_filesystem=None
                if isinstance(self.filesystem, fs.LocalFileSystem)
                else self.filesystem,
                callbacks=[listener],
                verbose=0,
            ),
        )
        outcome: Future[None] = Future()
        Thread(target=_fit, args=(tuner, outcome), name="ray-tune", daemon=True).start()
        while not outcome.done() or not changes.empty():
            stop_if_asked()
            try:
                yield changes.get(timeout=_POLL_S)
            except Empty:
                yield None
        try:
            outcome.result()
        except (TuneError, ray.exceptions.RayError) as error:
            raise TrainingError(f"Ray lost the search: {last_line(str(error))}") from error
        finally:
            self._remove_scratch()

    @property
    def _scratch(self) -> str:
        """Name of the folder of Ray Tune in the checkpoint store."""
        return f"{self.plan.name}-tune"

    def _remove_scratch(self) -> None:
        try:
            self.filesystem.delete_dir(f"{self.path}/{self._scratch}")
        except OSError as error:
            logger.warning("%s/%s stays: %s", self.path, self._scratch, error)


def _fit(tuner: tune.Tuner, outcome: Future[None]) -> None:
    """In a thread: in the main one Ray Tune would take over Ctrl-C."""
    # at the end it misses the files of results that are turned off
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    try:
        tuner.fit()
    except BaseException as error:  # noqa: BLE001 - raised again in the waiting thread
        outcome.set_exception(error)
    else:
        outcome.set_result(None)


class Halving(ASHAScheduler):  # type: ignore[misc]
    """Asynchronous successive halving (Li et al., MLSys 2020) that never stops the default.

    It needs the score of the default for comparison.
    """

    def __init__(self) -> None:
        super().__init__(
            time_attr="epoch",
            metric="psnr",
            mode="max",
            max_t=EPOCHS,
            grace_period=1,
            reduction_factor=REDUCTION,
        )
        self.stopped: set[str] = set()

    def on_trial_result(self, tune_controller: object, trial: Any, result: dict[str, Any]) -> str:
        action = str(super().on_trial_result(tune_controller, trial, result))
        if action != TrialScheduler.STOP or result["epoch"] >= EPOCHS:
            return action
        if trial.config["trial"]["number"] == DEFAULT:
            return str(TrialScheduler.CONTINUE)
        self.stopped.add(trial.trial_id)
        return action

    def tell(self, trial: Trial) -> None:
        """The points of a trial that has ended in an earlier call."""
        config = {"trial": {"number": trial.number}}
        known = SimpleNamespace(trial_id=trial.key, config=config)
        self.on_trial_add(None, known)
        for point in trial.points:
            self.on_trial_result(None, known, {"epoch": point.epoch, "psnr": point.psnr})


def _scheduler(rows: Rows, *, halving: bool) -> TrialScheduler:
    if not halving:
        return FIFOScheduler()
    scheduler = Halving()
    for trial in rows.trials().values():
        if trial.state != "running":
            scheduler.tell(trial)
    return scheduler


@dataclass
class _Listener(tune.Callback):  # type: ignore[misc]
    """Saves the row of a trial after each report, in the process and thread of Ray Tune."""

    rows: Rows
    trials: dict[str, Trial]
    scheduler: TrialScheduler
    changes: SimpleQueue[Trial] = field(repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Ray Tune pickles it for a resume of its own, which we do not use

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: object,  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **_: object,
    ) -> None:
        ours = self._of(trial)
        if "planned" in result:
            ours = ours.model_copy(update=result["planned"])
        if "failed" in result:
            ours = ours.model_copy(update={"state": "failed", "reason": result["failed"]})
        if "epoch" in result:
            point = Point(epoch=result["epoch"], psnr=result["psnr"], ssim=result["ssim"])
            before = tuple(p for p in ours.points if p.epoch < point.epoch)
            ours = ours.model_copy(
                update={"points": (*before, point), "seconds": result["seconds"]}
            )
        self._save(ours)

    def on_trial_complete(
        self,
        iteration: int,  # noqa: ARG002
        trials: object,  # noqa: ARG002
        trial: Any,
        **_: object,
    ) -> None:
        ours = self._of(trial)
        if ours.state != "running":
            return
        if ours.points and ours.points[-1].epoch == EPOCHS:
            self._save(ours.model_copy(update={"state": "done"}))
        elif trial.trial_id in getattr(self.scheduler, "stopped", ()):
            self._save(ours.model_copy(update={"state": "stopped"}))

    def on_trial_error(
        self,
        iteration: int,  # noqa: ARG002
        trials: object,  # noqa: ARG002
        trial: Any,
        **_: object,
    ) -> None:
        reason = last_line(str(trial.get_error() or "")) or "its process ended"
        self._save(self._of(trial).model_copy(update={"state": "failed", "reason": reason}))

    def _of(self, trial: Any) -> Trial:
        return self.trials[Trial.model_validate(trial.config["trial"]).key]

    def _save(self, trial: Trial) -> None:
        self.trials[trial.key] = trial
        self.rows.save(trial)
        self.changes.put(trial)


@dataclass(frozen=True)
class _Given:
    plan: Plan
    settings: Settings
    shared: SharedJob


def _trainable(config: dict[str, Any], given: _Given) -> None:
    """A trial in its actor. Errors that name their cause are told, not raised."""
    trial, plan = Trial.model_validate(config["trial"]), given.plan
    use_threads(plan.threads)
    job = given.shared.open()
    filesystem, path = open_filesystem(given.settings)
    try:
        if trial.steps is None:
            measured = planned(trial, plan, job)
            tune.report({"planned": vars(measured)})
            trial = trial.model_copy(update=vars(measured))
        started, before = time.monotonic(), trial.seconds

        def tell(point: Point) -> None:
            seconds = before + time.monotonic() - started
            tune.report(point.model_dump() | {"seconds": seconds})

        train(trial, job, checkpoints(filesystem, path, plan, trial), tell)
    except MirnetError as error:
        tune.report({"failed": str(error)})
