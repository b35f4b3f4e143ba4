"""Train a registered version again, and judge whether its score comes out again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from mirnet.errors import UsageError
from mirnet.params import with_enhance_options
from mirnet.results import DataVersion, Result, TrainResult
from mirnet.stages.data import split_roles
from mirnet.stages.models import CANDIDATE, load_enhancer, open_model
from mirnet.stages.run import RunConfig, run_tags, training_tags
from mirnet.stages.training import origin, replayed_pairs, train

if TYPE_CHECKING:
    from mirnet.tracking.recorded import RecordedScore, RecordedTraining
    from mirnet.tracking.versions import RegisteredVersion

REPRODUCES_TAG = "mirnet.reproduces"
_VAL = "val"

# tag, name; a repetition on other ones is of something else
_INPUTS = {
    "mirnet.git_commit": "commit",
    "mirnet.git_changes": "uncommitted changes",
    "mirnet.data_digest": "data",
    "mirnet.init_from": "initial weights",
    "mirnet.teacher": "teacher",
    "mirnet.perceptual_weights": "weights of the perceptual term",
    "mirnet.replay": "replayed data",
}
# on other ones results differ by rounding
_PLACES = {
    "mirnet.hardware": "processor",
    "mirnet.workers": "workers",
    "mirnet.lock": "lock of packages",
    "mirnet.lock_strays": "packages other than the lock's",
    "mirnet.packages": "packages",
}
_NEW_TAGS = (
    *("mirnet.git_changes", "mirnet.hardware", "mirnet.workers"),
    *("mirnet.perceptual_weights", "mirnet.replay"),
)
"""Runs of earlier versions of Mirnet do not have them."""


class Deviation(Result):
    """What differs between the recorded training and one here."""

    name: str
    recorded: str | None
    here: str | None
    decisive: bool = Field(description="other code, data or params, not only other rounding")

    def __str__(self) -> str:
        recorded, here = (value or "none" for value in (self.recorded, self.here))
        return f"{self.name}: {recorded} recorded, {here} here"


class ReproducedSeed(Result):
    """One repetition."""

    seed: int
    run_id: str | None = Field(description="MLflow run of the repetition")
    model_dir: str
    weights_digest: str
    psnr: float = Field(description="dB, as the original is scored")


class Reproduction(Result):
    """Result of `mirnet reproduce`."""

    version: str = Field(description="models:/NAME/NUMBER")
    run_id: str = Field(description="MLflow run of the original training")
    reproduced: bool | None = Field(description="null: one seed cannot be judged")
    verdict: str
    split: str = Field(description="pairs of the scores: eval15 or val; val: of the best epoch")
    psnr: float = Field(description="recorded score of the version, dB")
    interval: tuple[float, float] | None = Field(
        description="95 % prediction interval of the repetitions, dB; null with one seed"
    )
    bit_equal: bool = Field(description="a repetition has the same weights, bit for bit")
    seeds: tuple[ReproducedSeed, ...]
    deviations: tuple[Deviation, ...]
    seconds: float


@dataclass(frozen=True)
class _Attempt:
    """A version with what is recorded of it, and the run that trains here.

    ``scored``: its evaluation; none if there is none on these data. ``psnr``: its recorded score.
    """

    version: RegisteredVersion
    training: RecordedTraining
    scored: RecordedScore | None
    psnr: float
    data: Path
    data_version: DataVersion
    run: RunConfig

    @property
    def folder(self) -> Path:
        return self.run.settings.reports_dir


def reproduce(
    reference: str,
    data: Path,
    run: RunConfig,
    *,
    num_seeds: int = 3,
    anyway: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Reproduction:
    """Train a registered version again with its own params, and compare the scores.

    The recorded seed comes first; if it gives the same weights, that is the answer. Otherwise the
    following seeds are trained too, and the recorded PSNR has to lie within their 95 % prediction
    interval. Models and reports are in ``reproduce/NAME-NUMBER`` of the reports folder; every
    repetition is an MLflow run with a link to the version. Nothing is registered or promoted.

    Args:
        reference: ``models:/NAME@ALIAS`` or ``models:/NAME/NUMBER``.
        run: its settings count; the params are those of the version.
        num_seeds: trainings at most.
        anyway: go on although commit, data or params differ.
        progress: called after each epoch with the number done and the total.

    Raises:
        UsageError: no such version, it was not trained here, or commit, data or params differ.
        UntrustedModel: the version has no valid signature.
        DataError: no such folder.
        GateRefused: the data do not pass validation.
        ServiceError: MLflow or Ray cannot be reached.
    """
    started = time.monotonic()
    attempt = _attempt(reference, data, run)
    deviations = tuple(_deviations(attempt))
    decisive = [str(deviation) for deviation in deviations if deviation.decisive]
    if decisive and not anyway:
        raise UsageError(
            f"{attempt.version.label} cannot be reproduced here: {'; '.join(decisive)}. "
            "--anyway trains in spite of it"
        )
    first = attempt.training.params.train.seed
    epochs = _Epochs(attempt.training.params.train.num_epochs * num_seeds, progress)
    seeds: list[ReproducedSeed] = []
    for seed in range(first, first + num_seeds):
        seeds.append(_train_again(attempt, seed, epochs))
        if seeds[-1].weights_digest == attempt.version.weights_digest:
            break
    result = _judge(attempt, seeds, deviations, seconds=time.monotonic() - started)
    result.save(attempt.run.report("reproduce"))
    return result


class _Epochs:
    """Counts over all repetitions; one that stops early leaves out the rest of its epochs."""

    def __init__(self, total: int, told: Callable[[int, int], None] | None) -> None:
        self._done, self._total, self._told = 0, total, told

    def __call__(self, _: object) -> None:
        self._done += 1
        if self._told is not None:
            self._told(self._done, self._total)


def _attempt(reference: str, data: Path, run: RunConfig) -> _Attempt:
    from mirnet.data.versioning import data_version
    from mirnet.tracking.recorded import recorded_score, recorded_training
    from mirnet.tracking.registry import check

    version, _ = check(reference, run.settings)
    training = recorded_training(version, run.settings)
    here = data_version(data)
    scored = recorded_score(version, run.settings)
    if scored is not None and scored.digest != here.digest:
        scored = None  # on pairs that are not here
    psnr = scored.psnr if scored else training.metrics.get("val/best_psnr")
    if psnr is None:
        raise UsageError(f"{version.label}: its training has no score in MLflow")
    folder = run.settings.reports_dir / "reproduce" / _plain(f"{version.name}-{version.version}")
    settings = run.settings.model_copy(update={"reports_dir": folder})
    own = replace(run, params=training.params, settings=settings)
    return _Attempt(version, training, scored, psnr, data, here, own)


def _deviations(attempt: _Attempt) -> Iterator[Deviation]:
    from mirnet.tracking.environment import environment_tags

    run, recorded = attempt.run, attempt.training.tags
    recipe = run.params.train
    here = (
        run_tags(run, attempt.data_version)
        | training_tags(run)
        | environment_tags()
        | {
            tag: origin(open_model(source, run)) if source else None
            for tag, source in (
                ("mirnet.init_from", recipe.init_from),
                ("mirnet.teacher", recipe.distill_from),
            )
        }
        | {"mirnet.replay": replayed_pairs(run.params).digest or None}
    )
    for tag, name in (_INPUTS | _PLACES).items():
        then, now = recorded.get(tag), here.get(tag)
        if then != now and not (then is None and tag in _NEW_TAGS):
            yield Deviation(name=name, recorded=then, here=now, decisive=tag in _INPUTS)
    yield from _changed_params(attempt.training)


def _changed_params(training: RecordedTraining) -> Iterator[Deviation]:
    """Params that came out otherwise than they were recorded, or that are new since."""
    from mirnet.tracking.runs import LONGEST_VALUE

    for key, value in training.params.flat().items():
        then, now = training.logged.get(key), str(value)[:LONGEST_VALUE]
        if then is None and value is not None:
            yield Deviation(name=key, recorded=None, here=now, decisive=False)
        elif then is not None and then != now:
            yield Deviation(name=key, recorded=then, here=now, decisive=True)


def _train_again(attempt: _Attempt, seed: int, progress: _Epochs) -> ReproducedSeed:
    from mirnet.tracking.logged_models import weights_digest

    params, version = attempt.training.params, attempt.version
    recipe = params.train.model_copy(update={"seed": seed})
    run = replace(attempt.run, params=params.model_copy(update={"train": recipe}))
    label = _plain(f"reproduce-{version.name}-{version.version}-seed{seed}")
    trained = train(
        attempt.data,
        run,
        version=attempt.data_version,
        model_dir=attempt.folder / f"seed-{seed}",
        run_name=f"{label}-{time.strftime('%Y%m%d-%H%M%S')}",
        tags={REPRODUCES_TAG: version.address},
        progress=progress,
    )
    psnr = _score(attempt, trained, run)
    _link(attempt, trained, psnr)
    return ReproducedSeed(
        seed=seed,
        run_id=trained.run_id,
        model_dir=trained.model_dir,
        weights_digest=weights_digest(Path(trained.model_dir)),
        psnr=psnr,
    )


def _score(attempt: _Attempt, trained: TrainResult, run: RunConfig) -> float:
    """Mean PSNR on the pairs and with the precision of the recorded evaluation.

    Not by the stage ``evaluate``, which would resume the recorded run if the weights are equal.
    """
    from mirnet.data.loading import load_pairs
    from mirnet.evaluation.scoring import score_pairs

    scored = attempt.scored
    if scored is None:
        return trained.best_val_psnr
    roles = split_roles(attempt.data, run)
    ids = roles["val" if scored.split == _VAL else "eval"]
    pairs = [
        (i, low, high) for i, (low, high) in zip(ids, load_pairs(attempt.data, ids), strict=True)
    ]
    params = with_enhance_options(run.params, precision=scored.precision)
    enhance = load_enhancer(Path(trained.model_dir), replace(run, params=params))
    _, means = score_pairs(pairs, {CANDIDATE: enhance}, params.evaluate)
    return means[CANDIDATE].psnr


def _link(attempt: _Attempt, trained: TrainResult, psnr: float) -> None:
    from mirnet.tracking.notes import version_page
    from mirnet.tracking.runs import attach

    if trained.run_id is None:
        return
    version = attempt.version
    run = attach(trained.run_id, attempt.run.settings)
    run.log_metrics({"reproduce/psnr": psnr, "reproduce/recorded_psnr": attempt.psnr})
    page = version_page(version.name, version.version)
    run.log_note("Reproduces", f"[{version.label}]({page})")


def _judge(
    attempt: _Attempt,
    seeds: Sequence[ReproducedSeed],
    deviations: tuple[Deviation, ...],
    *,
    seconds: float,
) -> Reproduction:
    from mirnet.evaluation.statistics import prediction_interval

    version, psnr = attempt.version, attempt.psnr
    bit_equal = any(seed.weights_digest == version.weights_digest for seed in seeds)
    scores = [seed.psnr for seed in seeds]
    interval = prediction_interval(scores) if len(scores) > 1 else None
    within = interval is not None and interval[0] <= psnr <= interval[1]
    reproduced = True if bit_equal else within if interval else None
    return Reproduction(
        version=version.address,
        run_id=attempt.training.run_id,
        reproduced=reproduced,
        verdict=f"{version.label}: {_verdict(psnr, scores, interval, reproduced, bit_equal)}",
        split=attempt.scored.split if attempt.scored else _VAL,
        psnr=psnr,
        interval=interval,
        bit_equal=bit_equal,
        seeds=tuple(seeds),
        deviations=deviations,
        seconds=seconds,
    )


def _verdict(
    psnr: float,
    scores: Sequence[float],
    interval: tuple[float, float] | None,
    reproduced: bool | None,
    bit_equal: bool,
) -> str:
    if bit_equal:
        return f"reproduced, the weights are equal bit for bit ({scores[-1] - psnr:+.3f} dB)"
    if interval is None:
        return (
            f"not judged: the weights differ, PSNR by {scores[0] - psnr:+.3f} dB; the spread of "
            "seeds takes two or more (--seeds 3)"
        )
    low, high = interval
    return (
        f"{'reproduced' if reproduced else 'not reproduced'}: recorded {psnr:.2f} dB, "
        f"{'within' if reproduced else 'outside of'} {low:.2f} to {high:.2f} dB, where 95 % of "
        f"repetitions lie by {len(scores)} seeds"
    )


def _plain(name: str) -> str:
    """Fit for a run name and a folder."""
    return re.sub(r"[^\w.-]", "-", name).lstrip(".-")
