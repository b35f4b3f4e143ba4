"""The stage of the search with trials that are made up: order, second seed, rows and child runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from mirnet import ray_session, stages
from mirnet.config import Settings
from mirnet.params import Params, load_params
from mirnet.results import DataVersion
from mirnet.search import trial as trials
from mirnet.search.outcome import SearchResult
from mirnet.search.rows import EPOCHS, Plan, Point, Rows, Trial
from mirnet.search.space import SearchSpace
from mirnet.search.tuning import Tuning
from mirnet.stages import searching
from mirnet.stages.run import RunConfig
from mirnet.tracking.queries import list_runs

SPACE = SearchSpace(networks={"mirnet-xs": {"n_feat": (8,)}}, train={"lr": (0.001, 0.003, 0.004)})
VERSION = DataVersion(path="data", digest="d1", num_files=16, size=9, status="untracked")


@dataclass
class MadeUp:
    """In the place of Ray Tune: the score depends on the rate and the seed."""

    plan: Plan
    num_slots: int = 2
    ran: list[str] = field(default_factory=list)
    fail_after: int | None = None

    def run(
        self, trials: Sequence[Trial], rows: Rows, *, seconds: float, halving: bool
    ) -> Iterator[Trial | None]:
        assert seconds > 0 and halving == all(t.seed == self.plan.train_seed for t in trials)
        for each in trials:
            if self.fail_after == len(self.ran):
                raise KeyboardInterrupt
            self.ran.append(each.key)
            yield None
            last = 10 + 1000 * each.params.train.lr * (1 if each.seed == 0 else 0.5)
            points = [
                Point(epoch=n, psnr=last - EPOCHS + n, ssim=0.5) for n in range(1, EPOCHS + 1)
            ]
            change = {"state": "done", "points": tuple(points), "steps": 40, "gmac": 1.0}
            rows.save(done := each.model_copy(update=change))
            yield done


@pytest.fixture
def tuning(monkeypatch: pytest.MonkeyPatch) -> list[MadeUp]:
    """Those of all calls."""
    made: list[MadeUp] = []

    def prepare(plan: Plan, *_: object) -> MadeUp:
        made.append(MadeUp(plan, fail_after=2 if not made else None))
        return made[-1]

    black = np.zeros((40, 48, 3), np.uint8)
    monkeypatch.setattr(Tuning, "prepare", prepare)
    monkeypatch.setattr(ray_session, "ray_session", lambda *_, **__: nullcontext())
    monkeypatch.setattr(trials, "measured_validation", lambda *_: 0.01)
    monkeypatch.setattr(trials, "outputs_of", lambda _, __, pairs, *___: [black] * len(pairs))
    return made


def test_a_search_goes_on_and_repeats_winner_and_default_with_a_second_seed(
    pairs_dir: Path,
    small_params: Callable[..., Params],
    train_ids: tuple[str, ...],
    val_ids: tuple[str, ...],
    settings: Settings,
    tmp_path: Path,
    tuning: list[MadeUp],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    splits = {"train": train_ids, "val": val_ids}
    monkeypatch.setattr(
        searching, "passed_validation", lambda *_: type("Passed", (), {"splits": splits})
    )
    run = RunConfig(small_params("train.lr=0.002"), settings)
    into = tmp_path / "search"

    def search(minutes: float = 60) -> SearchResult:
        return stages.search(pairs_dir, run, SPACE, minutes=minutes, version=VERSION, into=into)

    with pytest.raises(KeyboardInterrupt):
        search()
    result = search()
    keys = [f"trial-00{n}-seed0" for n in range(4)]
    assert tuning[0].ran == keys[:2]
    winner = max(Rows(into).trials().values(), key=lambda trial: trial.psnr or 0)
    again = ["trial-000-seed1", winner.key.replace("seed0", "seed1")]
    assert tuning[1].ran == [*keys[2:], *again]

    assert result.winner_psnr == pytest.approx(14.0) and result.default_psnr == pytest.approx(12.0)
    assert result.second_gain == pytest.approx(1.0) and result.kept == pytest.approx(0.5)
    assert "A second seed keeps 50 % of the gain (+1.00 dB)" in result.verdict
    assert result.trials["trained to their end"] == 4
    best = load_params(result.preset)
    assert (best.train.lr, best.train.seed) == (0.004, 0)
    assert Rows(into).trials()[again[1]].params.train.seed == 1
    assert "data:image/webp" in Path(result.page).read_text()

    runs = {found.name: found for found in list_runs(settings, purpose="search", limit=100)}
    assert set(runs) == {result.name, *(f"{result.name}-{key}" for key in (*keys, *again))}
    assert runs[f"{result.name}-{winner.key}"].metrics["val/psnr"] == pytest.approx(14.0)
    assert runs[result.name].metrics["search/second_gain"] == pytest.approx(1.0)
    assert runs[result.name].status == "FINISHED"

    assert search() == result and len(tuning) == 2, "shown again"
    assert search(minutes=90).minutes == 90 and tuning[2].ran == [], "the space has no more"
