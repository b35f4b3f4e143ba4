"""Winner, front, what a second seed keeps, the preset and the page, from rows."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mirnet.errors import UsageError
from mirnet.params import load_params
from mirnet.search.outcome import Outcome, gmac, pareto_front, result_of, write_preset
from mirnet.search.page import Shown, render_search
from mirnet.search.rows import Progress, Rows
from mirnet.search.tuning import Halving, _scheduler
from tests.search.made import plan, trial, values

DEFAULT = trial(0, 14, 15, 16, 17.0, label="default (mirnet-xs)")
BETTER = trial(2, 14, 15, 17, 18.0)
CHEAP = trial(3, 14, 15, 16, 16.5, gmac=0.1)
DEAR = trial(4, 14, 15, 16, 16.8, gmac=9.0)
STOPPED = trial(1, 12, 13)
ALL = (DEFAULT, STOPPED, BETTER, CHEAP, DEAR)


def _again(first, psnr: float):
    return first.model_copy(
        update={"seed": 1, "points": (first.points[-1].model_copy(update={"psnr": psnr}),)}
    )


def test_the_winner_its_gain_and_what_a_second_seed_keeps() -> None:
    outcome = Outcome.of([*ALL, _again(DEFAULT, 17.2), _again(BETTER, 17.6)], plan())
    assert outcome.winner == BETTER and outcome.default == DEFAULT
    assert outcome.gain == pytest.approx(1.0)
    assert outcome.second_gain == pytest.approx(0.4)
    assert outcome.kept == pytest.approx(0.4)
    assert "+1.00 dB over the default" in outcome.verdict()
    assert "keeps 40 % of the gain (+0.40 dB)" in outcome.verdict()


def test_the_verdict_says_what_is_missing() -> None:
    assert "trained to its end" in Outcome.of([STOPPED], plan()).verdict()
    assert "no gain to state" in Outcome.of([BETTER], plan()).verdict()
    assert "Nothing better" in Outcome.of([DEFAULT, CHEAP], plan()).verdict()
    assert "Not confirmed" in Outcome.of([DEFAULT, BETTER, _again(BETTER, 18)], plan()).verdict()
    worse = Outcome.of([DEFAULT, BETTER, _again(DEFAULT, 17), _again(BETTER, 16.9)], plan())
    assert "keeps nothing of the gain (-0.10 dB)" in worse.verdict()


def test_a_trial_is_worth_its_best_validation() -> None:
    assert trial(1, 14, 17, 16, 16.5).psnr == 17
    assert trial(1).psnr is None


def test_the_front_has_what_no_other_beats() -> None:
    assert pareto_front(ALL[:1] + ALL[2:], gmac) == (CHEAP, DEFAULT, BETTER)


def test_the_preset_is_taken_by_params(tmp_path: Path) -> None:
    drawn = load_params(
        "cpu-mirnet", overrides=("model.name=iat", "model.width=8", "train.lr=0.00123")
    )
    path = write_preset(BETTER.model_copy(update={"values": values(drawn)}), plan(), tmp_path / "w")
    loaded = load_params(path)
    assert loaded.preset == "search-1"
    assert loaded.model_copy(update={"preset": "cpu-mirnet"}) == drawn


def test_the_page_is_one_file_that_shows_front_second_seed_and_images(tmp_path: Path) -> None:
    trials = [*ALL, trial(5, state="failed", reason="too slow: 3 steps <b>")]
    trials += [_again(DEFAULT, 17.2), _again(BETTER, 17.6)]
    outcome = Outcome.of(trials, plan())
    result = result_of(
        outcome,
        trials,
        plan(),
        minutes=10,
        spent_minutes=9.8,
        preset=tmp_path / "winner.yaml",
        page=tmp_path / "index.html",
        run_id=None,
    )
    assert result.trials["trained to their end"] == 4 and result.trials["not trained"] == 1
    image = np.zeros((30, 40, 3), np.uint8)
    shown = [Shown("our485/2.png", {"dark input": image, BETTER.title: image})]
    html = render_search(tmp_path / "index.html", result, plan(), trials, shown).read_text()
    assert "<script src" not in html and 'src="http' not in html and 'href="http' not in html
    assert html.count("data:image/webp") == 2 and html.count("<svg") == 2
    assert html.count("<td>front</td>") == 3
    assert "keeps 40 %" in html and "too slow: 3 steps &lt;b&gt;" in html
    assert "stopped after 2 of 4" in html
    assert "--params" in html and "n_feat" in html


def test_rows_are_read_back_and_other_searches_are_refused(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    for record in (plan(), *ALL, Progress(minutes=3, spent_s=1.5)):
        rows.save(record)
    assert rows.plan() == plan()
    assert list(rows.trials().values()) == sorted(ALL, key=lambda t: t.number)
    assert rows.progress() == Progress(minutes=3, spent_s=1.5)
    plan().check(plan(trial_s=1.0, train_ids=()))
    with pytest.raises(UsageError, match="--seed"):
        plan().check(plan(seed=1))
    with pytest.raises(UsageError, match="data"):
        plan().check(plan(digest="other"))
    (tmp_path / "plan.json").write_text("{}")
    with pytest.raises(UsageError, match=r"plan\.json"):
        rows.plan()


def test_halving_counts_trials_of_earlier_calls_and_spares_the_default(tmp_path: Path) -> None:
    rows = Rows(tmp_path)
    for each in (DEFAULT, BETTER):
        rows.save(each)
    scheduler = _scheduler(rows, halving=True)
    assert isinstance(scheduler, Halving)

    def decide(number: int, epoch: int, psnr: float) -> str:
        new = SimpleNamespace(trial_id=f"n{number}", config={"trial": {"number": number}})
        scheduler.on_trial_add(None, new)
        return scheduler.on_trial_result(None, new, {"epoch": epoch, "psnr": psnr})

    assert decide(7, 1, 13.0) == scheduler.STOP
    assert decide(8, 1, 14.5) == scheduler.CONTINUE
    assert decide(0, 1, 1.0) == scheduler.CONTINUE
    assert scheduler.stopped == {"n7"}
    assert scheduler.on_trial_result(None, SimpleNamespace(), {"planned": {}}) == scheduler.CONTINUE
