"""The filters that docs/mlflow.md gives analysts find what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.params import ModelParams, Params, TrainParams
from mirnet.results import DataVersion
from mirnet.tracking import queries, track
from mirnet.tracking.evaluations import find_subject
from mirnet.tracking.queries import find_run, list_runs

PAGE = Path(__file__).parents[2] / "docs" / "mlflow.md"


def test_every_filter_of_the_page_finds_its_runs_and_no_others(
    store: Settings, version: DataVersion
) -> None:
    tags = {"mirnet.data_digest": version.digest, "mirnet.split": "eval15"}
    for seed in (0, 1):
        params = Params(model=ModelParams(name="mirnet-xs"), train=TrainParams(seed=seed))
        with track(store, purpose="train", name=f"seed {seed}", tags=tags) as run:
            run.log_params(params)
            run.log_data(version, context="training")
    for method, psnr in (("mirnet", 17.5), ("champion", 17.0), ("autocontrast", 11.2)):
        more = tags | {"mirnet.method": method}
        more |= {"mirnet.gate": "promote"} if method == "mirnet" else {}
        with track(store, purpose="evaluate", name=method, tags=more) as run:
            run.log_data(version, context="evaluation")
            run.log_metrics({"eval/psnr": psnr}, data=version)
    with track(store, purpose="evaluate", name="other data"):
        pass

    filters = re.findall(r"^    ((?:tags|dataset|params|metrics)\..+)$", PAGE.read_text(), re.M)
    expected = [
        # those with the split tag, those bound to the data, ...
        {"seed 0", "seed 1", "mirnet", "champion", "autocontrast"},
        {"seed 0", "seed 1", "mirnet", "champion", "autocontrast"},
        {"mirnet"},
        {"seed 0", "seed 1"},
        {"seed 1"},
        {"mirnet"},
    ]
    found = [{r.name for r in list_runs(store, filter_string=f)} for f in filters]
    assert found == expected


def test_old_runs_are_found(store: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """By id and name, and as the evaluations of a model, behind any number of newer ones."""
    with track(store, purpose="train", name="it's first") as run:
        trained = run.run_id
    with track(store, purpose="train", name="oldest of all"):
        pass
    tags = {"mirnet.training_run": trained, "mirnet.model": "abc"}
    with track(store, purpose="evaluate", name="its scores", tags=tags):
        pass
    compared = {"mirnet.model": "champion abc"}
    with track(store, purpose="evaluate", name="as champion", tags=compared):
        pass
    for number in range(3):
        other = {"mirnet.training_run": "0" * 32, "mirnet.model": "def"}
        with track(store, purpose="evaluate", name=f"newer {number}", tags=other):
            pass
    monkeypatch.setattr(queries, "_MOST_RUNS", 2)
    assert find_run(trained, store).name == "it's first"
    assert find_run("oldest", store).name == "oldest of all"
    assert find_run("its scores", store).tags["mirnet.training_run"] == trained
    subject = find_subject(trained, store)
    assert [run.name for run in subject.evaluations] == ["as champion", "its scores"]
    for unknown in ("0" * 32, "it's not there"):
        with pytest.raises(UsageError, match="no such run"):
            find_run(unknown, store)


def test_a_run_is_named_in_full_or_by_a_prefix_of_one_name(store: Settings) -> None:
    names = ("clahe", "gamma eval15 d1", "autocontrast eval15 d1", "autocontrast-tone eval15 d1")
    ids = {}
    for name in (*names, "gamma eval15 d2", "clahe-wide"):  # the newest come last
        with track(store, purpose="evaluate", name=name) as run:
            ids[name] = run.run_id

    assert find_run("clahe", store).run_id == ids["clahe"], "the full name, not the newest"
    assert find_run("autocontrast", store).name == "autocontrast eval15 d1", "a whole word"
    assert find_run("autocontrast-t", store).name == "autocontrast-tone eval15 d1"
    assert find_run(ids["clahe"][:12], store).name == "clahe"
    with pytest.raises(UsageError, match=r"2 names .*gamma eval15 d2, gamma eval15 d1"):
        find_run("gamma", store)
    with pytest.raises(UsageError, match=r"2 names .*autocontrast-tone eval15 d1"):
        find_run("auto", store)
    with pytest.raises(UsageError, match="no such run"):
        find_run("equalize", store)
