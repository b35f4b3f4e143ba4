"""A search on sample photographs with real Ray Tune: interrupted, gone on with, and recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirnet import stages
from mirnet.config import Settings
from mirnet.data.samples import make_sample_data
from mirnet.errors import UsageError
from mirnet.params import load_params
from mirnet.results import DataVersion
from mirnet.search.outcome import SearchResult
from mirnet.search.rows import EPOCHS, Rows, Trial
from mirnet.search.space import SearchSpace
from mirnet.stages.run import RunConfig
from mirnet.tracking.queries import list_runs

RECIPE = (
    *("model.n_feat=8", "train.patch_size=16", "train.batch_size=1", "train.warmup_steps=2"),
    "validate.val_fraction=0.3",
)
SPACE = SearchSpace(networks={"mirnet-xs": {"n_feat": (8,)}}, train={"lr": (0.004, 0.0001)})
MINUTES, TRIAL_MINUTES = 9.0, 0.3
"""It ends when the space does."""


@pytest.mark.slow
def test_a_search_goes_on_after_an_interruption_and_keeps_what_has_ended(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # as the tests themselves, beside which it runs
    monkeypatch.setenv("RAY_worker_niceness", "0")
    data, into = tmp_path / "data", tmp_path / "search"
    make_sample_data(data, num_train=8, num_eval=2, size=160)
    run = RunConfig(load_params("cpu-mirnet", overrides=RECIPE), settings)

    def search(on_trial=None, minutes: float = MINUTES, seed: int = 0) -> SearchResult:
        return stages.search(
            data,
            run,
            SPACE,
            minutes=minutes,
            seed=seed,
            trial_minutes=TRIAL_MINUTES,
            version=stages.check_version(data, allow_modified=True),
            into=into,
            on_trial=on_trial,
        )

    def interrupt(trial: Trial) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        search(interrupt)
    rows = Rows(into)
    kept = [trial for trial in rows.trials().values() if trial.state != "running"]
    spent = rows.progress()
    assert kept and spent is not None and spent.spent_s > 0
    with pytest.raises(UsageError, match="--seed"):
        search(seed=1)

    ended: list[str] = []
    result = search(lambda trial: ended.append(trial.key))
    assert not {trial.key for trial in kept} & set(ended)
    trials = rows.trials()
    for before in kept:
        assert trials[before.key].points == before.points
    assert [trial.number for trial in trials.values() if trial.seed == 0] == [0, 1, 2]
    default = trials["trial-000-seed0"]
    assert default.state == "done" and len(default.points) == EPOCHS
    assert result.default_psnr == default.psnr
    assert result.spent_minutes > spent.spent_s / 60
    assert load_params(result.preset).model.config == run.params.model.config
    assert "data:image/webp" in Path(result.page).read_text()
    if result.winner != default.label:
        assert result.second_gain is not None and "A second seed keeps" in result.verdict

    runs = {run.name: run for run in list_runs(settings, purpose="search", limit=100)}
    assert set(runs) == {result.name, *(f"{result.name}-{key}" for key in trials)}
    assert {trial.run_id for trial in trials.values()} < {run.run_id for run in runs.values()}
    # shown again without a search
    assert search(interrupt) == result


def test_what_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, settings: Settings
) -> None:
    version = DataVersion(path="data", digest="d1", num_files=2, size=9, status="untracked")

    def search(place: Settings, trial_minutes: float | None = None) -> None:
        run = RunConfig(load_params("cpu-mirnet"), place)
        stages.search(
            tmp_path,
            run,
            SPACE,
            version=version,
            into=tmp_path / "search",
            minutes=3,
            trial_minutes=trial_minutes,
        )

    with pytest.raises(UsageError, match=r"MIRNET_RAY_ADDRESS http://head:8265: .* docs/search"):
        search(settings.model_copy(update={"ray_address": "http://head:8265"}))
    with pytest.raises(UsageError, match="--trial-minutes 2: at most half of --minutes"):
        search(settings, 2)
    assert not (tmp_path / "search").exists()
