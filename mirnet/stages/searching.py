"""Search for a better network and recipe: trials on Ray Tune, child runs in MLflow, a page."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirnet.errors import UsageError
from mirnet.results import DataVersion
from mirnet.search.clock import Clock, Count
from mirnet.search.outcome import NUM_BEST, Outcome, SearchResult, result_of, write_preset
from mirnet.search.rows import DEFAULT, EPOCHS, Plan, Rows, Trial
from mirnet.search.space import SearchSpace, check_space, configurations
from mirnet.stages.data import passed_validation
from mirnet.stages.run import RunConfig, run_tags, training_tags
from mirnet.stages.trial_runs import TrialRuns

if TYPE_CHECKING:
    from mirnet.search.page import Shown
    from mirnet.search.tuning import Tuning
    from mirnet.training.job import Job

RESULT, PAGE, PRESET = "search.json", "index.html", "winner.yaml"
_TRIAL_SHARE = 1 / 6
"""Of the whole time, what one trial may take."""
_REPEAT = 1.25
"""The second seed may take longer than what the first was planned for."""
_VALIDATION_SHARE = 0.2
_FEWEST_IMAGES = 8
_NUM_SHOWN = 3


def search(
    data: Path,
    run: RunConfig,
    space: SearchSpace,
    *,
    minutes: float,
    version: DataVersion,
    into: Path,
    seed: int = 0,
    threads: int = 1,
    trial_minutes: float | None = None,
    progress: Count | None = None,
    on_trial: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Search the space within a wall-clock time; the same call goes on after an interruption.

    Args:
        minutes: for everything, over all calls: the second seed and the page as well.
        into: folder of the rows, the page and the preset of the winner.
        seed: of the drawn configurations; trainings have ``train.seed``.
        threads: of one trial on the processor.
        trial_minutes: of one trial; none: a sixth of the time. Of a first call alone.
        progress: called with the seconds spent and those in total.
        on_trial: called for every trial that has ended.

    Raises:
        UsageError: a value of the space is refused, or the folder has trials of another search.
        GateRefused: the data do not pass validation.
        ServiceError: MLflow, Ray or the checkpoint store cannot be reached.
        TrainingError: Ray lost the search; the same call goes on.
    """
    started = time.monotonic()
    from mirnet.ray_session import ray_session
    from mirnet.tracking import check_tracking, track
    from mirnet.tracking.recorded import PARAMS, params_text
    from mirnet.training.ray.shared_job import shared_bytes

    rows = Rows(into)
    _check_address(run)
    check_space(space, run.params)
    trial_minutes = trial_minutes or minutes * _TRIAL_SHARE
    if trial_minutes > minutes / 2:
        raise UsageError(f"--trial-minutes {trial_minutes:g}: at most half of --minutes")
    check_tracking(run.settings)
    wanted = Plan(
        name=f"search-{time.strftime('%Y%m%d-%H%M%S')}",
        digest=version.digest,
        base=values_of(run.params),
        space=space,
        seed=seed,
        threads=threads,
        trial_s=60 * trial_minutes,
        train_ids=(),
        val_ids=(),
    )
    plan = rows.plan()
    if plan is not None:
        plan.check(wanted)
    if (known := _known(into, minutes)) is not None:
        return known
    before = rows.progress()
    clock = Clock(rows, minutes, before.spent_s if before else 0.0, progress, started)
    clock.save()
    job, plan = _prepare(data, run, plan or wanted, version)
    rows.save(plan)
    with track(
        run.settings,
        purpose="search",
        name=plan.name,
        key=plan.name,
        tags=run_tags(run, version) | training_tags(run),
    ) as parent:
        parent.log_params(run.params)
        parent.log_text(params_text(run.params), PARAMS)
        parent.log_text(space.model_dump_json(indent=2), "space.json")
        parent.log_data(version, context="search", split="train")
        children = TrialRuns(run, version, plan, parent.run_id, rows, on_trial)
        with ray_session(run.settings, object_store_bytes=shared_bytes(job)):
            from mirnet.search.tuning import Tuning

            tuning = Tuning.prepare(plan, job, run.settings)
            _search(tuning, rows, clock, children)
            _second_seed(tuning, rows, clock, children)
        result = _finish(run, plan, rows, clock, job, parent.run_id)
        parent.log_metrics(_metrics(result), data=version)
        parent.log_note("Search", result.verdict)
        for name in (PAGE, PRESET):
            if (into / name).is_file():
                parent.log_file(into / name)
        # after the page, since MLflow may be away; the same call then tries again
        children.log_all()
    clock.save()
    result.save(into / RESULT)
    return result


def _check_address(run: RunConfig) -> None:
    address = run.settings.ray_address or ""
    if address.startswith(("http://", "https://")):
        raise UsageError(
            f"MIRNET_RAY_ADDRESS {address}: a search runs on a node of the cluster, with "
            "MIRNET_RAY_ADDRESS=auto, or as a job: docs/search.md"
        )


def _known(into: Path, minutes: float) -> SearchResult | None:
    """The result of an earlier call, unless more time is given now."""
    path = into / RESULT
    if not path.is_file():
        return None
    known = SearchResult.load(path)
    return known if known.minutes >= minutes else None


def _prepare(data: Path, run: RunConfig, plan: Plan, version: DataVersion) -> tuple[Job, Plan]:
    """Load the data; a first call chooses the validation images by their time."""
    from mirnet.search.trial import chosen_pairs, measured_validation
    from mirnet.training import TrainRequest
    from mirnet.training.launch import load_job

    is_new = not plan.train_ids
    if is_new:
        splits = passed_validation(data, run, version).splits
        plan = plan.model_copy(update={"train_ids": splits["train"], "val_ids": splits["val"]})
    request = TrainRequest(
        root=data,
        train_ids=plan.train_ids,
        val_ids=plan.val_ids,
        params=plan.params,
        settings=run.settings.model_copy(update={"ray_address": "in-process"}),
        digest=plan.digest,
        run_name=plan.name,
        model_dir=Path(),
    )
    job = load_job(request)
    if not is_new:
        return job, plan
    image_s = measured_validation(plan, job)
    fits = int(_VALIDATION_SHARE * plan.trial_s / (EPOCHS * image_s))
    val = chosen_pairs(job.val, max(_FEWEST_IMAGES, fits))
    return replace(job, val=val), plan.model_copy(update={"val_ids": val.names})


def values_of(params: Any) -> dict[str, Any]:
    """Params as values of JSON, those that were given."""
    values: dict[str, Any] = params.model_dump(by_alias=True, mode="json", exclude_unset=True)
    return values


def _search(tuning: Tuning, rows: Rows, clock: Clock, children: TrialRuns) -> None:
    """New configurations until what is left is needed for the second seed."""
    plan = tuning.plan
    rounds = -(-2 // tuning.num_slots)
    kept_s = rounds * plan.trial_s * _REPEAT + clock.finish_s
    seconds = clock.left_s - kept_s
    if seconds <= 0:
        return
    there = rows.trials()
    begun = max((trial.number for trial in there.values()), default=-1) + 1
    most = begun + 1 + int(tuning.num_slots * EPOCHS * seconds / plan.trial_s)
    drawn = islice(configurations(plan.space, plan.params, seed=plan.seed), most)
    waiting = []
    for number, configuration in enumerate(drawn):
        new = Trial(
            number=number,
            seed=plan.train_seed,
            label=configuration.label,
            values=values_of(configuration.params),
        )
        trial = there.get(new.key, new)
        if trial.state == "running":
            waiting.append(trial)
    if waiting:
        _run(tuning, waiting, rows, clock, children, seconds=seconds, halving=True)


def _second_seed(tuning: Tuning, rows: Rows, clock: Clock, children: TrialRuns) -> None:
    """Train default and winner again with another seed, for as many steps."""
    plan, there = tuning.plan, rows.trials()
    outcome = Outcome.of(list(there.values()), plan)
    winner, default = outcome.winner, outcome.default
    if winner is None or default is None or winner.number == DEFAULT:
        return
    waiting = []
    for first in (default, winner):
        again = first.model_copy(
            update={
                "seed": plan.second_seed,
                "values": first.values
                | {"train": first.values["train"] | {"seed": plan.second_seed}},
                "state": "running",
                "points": (),
                "seconds": 0.0,
                "run_id": None,
            }
        )
        trial = there.get(again.key, again)
        if trial.state == "running":
            waiting.append(trial)
    seconds = clock.left_s - clock.finish_s
    if waiting and seconds > 0:
        _run(tuning, waiting, rows, clock, children, seconds=seconds, halving=False)


def _run(
    tuning: Tuning,
    trials: Sequence[Trial],
    rows: Rows,
    clock: Clock,
    children: TrialRuns,
    *,
    seconds: float,
    halving: bool,
) -> None:
    for trial in tuning.run(trials, rows, seconds=seconds, halving=halving):
        clock.tick()
        if trial is not None and trial.state != "running":
            children.ended(trial)


def _finish(
    run: RunConfig, plan: Plan, rows: Rows, clock: Clock, job: Job, run_id: str
) -> SearchResult:
    """Preset of the winner, images of the best, and the page."""
    from mirnet.search.page import render_search

    trials = list(rows.trials().values())
    outcome = Outcome.of(trials, plan)
    winner = outcome.winner
    preset = write_preset(winner, plan, rows.folder / PRESET) if winner else None
    shown = _shown(outcome, run, plan, job) if winner else ()
    result = result_of(
        outcome,
        trials,
        plan,
        minutes=clock.minutes,
        spent_minutes=clock.spent_s / 60,
        preset=preset,
        page=rows.folder / PAGE,
        run_id=run_id,
    )
    render_search(rows.folder / PAGE, result, plan, trials, shown)
    return result


def _shown(outcome: Outcome, run: RunConfig, plan: Plan, job: Job) -> list[Shown]:
    """The best trials and the default on a few validation images."""
    from mirnet.search.page import Shown
    from mirnet.search.trial import chosen_pairs, outputs_of
    from mirnet.storage.arrow import open_filesystem

    filesystem, path = open_filesystem(run.settings)
    pairs = chosen_pairs(job.val, _NUM_SHOWN)
    wanted = {
        trial.title: trial for trial in (*outcome.ranked[:NUM_BEST], outcome.default) if trial
    }
    made = {
        f"{title}, {trial.psnr:.2f} dB": outputs_of(trial, plan, pairs, filesystem, path)
        for title, trial in wanted.items()
    }
    shown = []
    for index, name in enumerate(pairs.names):
        low, high = pairs.pair(index)
        outputs = {title: images[index] for title, images in made.items()}
        shown.append(Shown(name, {"dark input": low, "reference": high} | outputs))
    return shown


def _metrics(result: SearchResult) -> dict[str, float]:
    values = {
        "search/default_psnr": result.default_psnr,
        "search/winner_psnr": result.winner_psnr,
        "search/gain": result.gain,
        "search/second_gain": result.second_gain,
        "search/spent_minutes": result.spent_minutes,
    }
    return {name: value for name, value in values.items() if value is not None}
