"""A promotion killed before any of its writes to MLflow: the next one brings it to its end."""

from __future__ import annotations

import json
import multiprocessing
import re
import shutil
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pandas as pd
import pytest

from mirnet import stages
from mirnet.config import Settings
from mirnet.params import load_params
from mirnet.results import Approval, EvaluationResult
from mirnet.tracking import aliases, audit, connect, registry, track
from tests import made_results
from tests.small_models import make_model
from tests.tracking.registering_child import Candidate, promote_and_die, skip_the_proof

# in the order in which a promotion makes them; the alias of a lock is a model of its own
WRITES = [
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "log_outputs",
    "create_registered_model",
    "create_model_version",
    "set_logged_model_tags",
    "log_model_artifact",
    "update_model_version",
    "create_registered_model",
    "set_model_version_tag",
    "set_registered_model_tag",
    "set_registered_model_alias",
    "set_registered_model_alias",
    "set_registered_model_tag",
    "update_registered_model",
    "delete_registered_model",
    "log_artifact",
    "log_batch",
    "set_tag",
    "set_tag",
    "set_logged_model_tags",
    "update_model_version",
    "set_model_version_tag",
    "set_model_version_tag",
]
PAIRS = 8
PAGE = "<!--verdict of {}--><!--end of verdict-->"


@pytest.fixture(autouse=True)
def _no_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    skip_the_proof(monkeypatch)


def scores_of(folder: Path) -> str:
    columns = {"width": 600, "height": 400, "seconds": 0.1, "added_clipping": 0.0}
    columns |= {"colour_cast": 1.0, "luma_ratio": 1.0}
    rows = [
        {
            "pair_id": str(i),
            "method": method,
            "psnr": psnr + i / 10,
            "gt_mean_psnr": psnr + i / 10,
            **columns,
        }
        for method, psnr in (("mirnet", 20.0), ("champion", 18.0), ("autocontrast", 11.0))
        for i in range(PAIRS)
    ]
    pd.DataFrame(rows).to_parquet(folder / "scores.parquet")
    return str(folder / "scores.parquet")


@pytest.fixture(scope="module")
def planted(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """Version 1 is champion; better weights are trained and evaluated."""
    root = tmp_path_factory.mktemp("planted")
    store = Settings(workspace=root / "workspace", reports_dir=root / "reports")
    store.workspace.mkdir()
    shutil.copy(empty_store, store.workspace / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        skip_the_proof(patch)
        old = make_model(root / "old", seed=1)
        with track(store, purpose="train", name="old") as first:
            pass
        version = registry.register(old, name="mirnet", run_id=first.run_id, settings=store)
        aliases.promote(version, why="the first", settings=store)
    with track(store, purpose="train", name="new") as second:
        pass
    with track(store, purpose="evaluate", name="scored") as scored:
        pass
    page = root / "index.html"
    page.write_text(PAGE.format(scored.run_id))
    score = made_results.score(PAIRS)
    model_dir = str(make_model(root / "new", seed=2))
    trained = made_results.trained(second.run_id, model_dir)
    evaluation = EvaluationResult(
        run_id=scored.run_id,
        model=model_dir,
        digest="d48f.dir",
        split="eval15",
        methods={"mirnet": score, "champion": score},
        champion_version="1",
        scores_path=scores_of(root),
        report_path=str(page),
        seconds=1.0,
    )
    return Candidate(stages.RunConfig(load_params("demo"), store), trained, evaluation)


@pytest.fixture
def candidate(planted: Candidate, settings: Settings, tmp_path: Path) -> Candidate:
    """The same in a database and with a page of the test's own."""
    settings.workspace.mkdir()
    shutil.copy(planted.run.settings.workspace / "mlflow.db", settings.workspace / "mlflow.db")
    page = shutil.copy(str(planted.evaluation.report_path), tmp_path / "index.html")
    return replace(
        planted,
        run=stages.RunConfig(planted.run.params, settings),
        evaluation=planted.evaluation.model_copy(update={"report_path": str(page)}),
    )


def in_a_process(candidate: Candidate, die_at: int | None, trace: Path) -> int | None:
    """Exit code of a promotion in a process; the server that forks it has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.tracking.registering_child"])
    child = context.Process(target=promote_and_die, args=(candidate, die_at, trace))
    child.start()
    child.join(timeout=200)
    return child.exitcode


def held(settings: Settings) -> dict[str, str]:
    return {
        alias: version.version
        for version in registry.list_versions("mirnet", settings)
        for alias in version.aliases
    }


def test_these_are_all_the_writes_of_a_promotion(candidate: Candidate, tmp_path: Path) -> None:
    assert in_a_process(candidate, None, tmp_path / "trace") == 0
    assert (tmp_path / "trace").read_text().split() == WRITES
    assert held(candidate.run.settings) == {"champion": "2", "previous": "1"}


@pytest.mark.parametrize(
    "die_at", range(len(WRITES)), ids=[f"{n}-{name}" for n, name in enumerate(WRITES)]
)
def test_killed_before_a_write_the_next_run_goes_on_correctly(
    candidate: Candidate, tmp_path: Path, die_at: int
) -> None:
    settings = candidate.run.settings
    assert in_a_process(candidate, die_at, tmp_path / "trace") == -9
    assert held(settings)["champion"] in ("1", "2"), "champion is never missing"

    result = candidate.promote()
    assert result.promoted and result.alias == "champion" and result.version == "2"
    assert result.previous_version == "1"
    assert held(settings) == {"champion": "2", "previous": "1"}

    client = connect(settings)
    version = registry.get_version("models:/mirnet@champion", settings)
    assert version.status == "READY" and version.tags["mirnet.gate"] == "promote"
    assert "beats autocontrast" in version.tags["mirnet.gate_reasons"]
    assert len(registry.list_versions("mirnet", settings)) == 2, "no second version of the same"
    run_id = str(candidate.trained.run_id)
    experiment = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    ready = [model.model_id for model in models if str(model.status) == "READY"]
    assert ready == [version.model_id], "no second model of the same"
    assert all(str(model.status) in ("READY", "FAILED") for model in models)
    outputs = client.get_run(run_id).outputs.model_outputs
    assert [output.model_id for output in outputs] == ready
    moves = [c for c in aliases.history("mirnet", settings) if c.version == "2"]
    assert [c.state for c in moves if c.state != "taken back"] == ["done"]
    assert {model.name for model in client.search_registered_models()} == {"mirnet"}
    page = Path(str(candidate.evaluation.report_path)).read_text()
    assert page.count("mirnet version 2 is champion") == 1
    scored = client.get_run(str(candidate.evaluation.run_id))
    assert scored.data.tags["mirnet.gate"] == "promote"


def test_version_model_and_runs_link_to_each_other(candidate: Candidate) -> None:
    settings = candidate.run.settings
    candidate.promote()
    client, version = connect(settings), registry.get_version("models:/mirnet/2", settings)
    model = client.get_logged_model(str(version.model_id))
    assert json.loads(model.tags["mlflow.modelVersions"]) == [{"name": "mirnet", "version": 2}]
    training, scored = (
        client.get_run(str(run_id))
        for run_id in (candidate.trained.run_id, candidate.evaluation.run_id)
    )
    evaluated = f"#/experiments/{scored.info.experiment_id}/runs/{scored.info.run_id}"
    links = {
        "#/models/mirnet/versions/2",
        f"#/experiments/{model.experiment_id}/models/{model.model_id}",
        f"#/experiments/{training.info.experiment_id}/runs/{training.info.run_id}",
        evaluated,
        f"{evaluated}/artifacts/index.html",
    }
    description = str(client.get_model_version("mirnet", "2").description)
    notes = [thing.tags["mlflow.note.content"] for thing in (training.data, scored.data, model)]
    for text in (description, *notes):
        assert set(re.findall(r"\]\((.+?)\)", text)) == links

    package = Path(urlsplit(model.artifact_location).path)
    card = (package / "MODEL_CARD.md").read_text(encoding="utf-8")
    assert description.startswith(card.strip()) and "| **this model** |" in card
    assert "passed, baseline" in description
    _, statement = registry.check("models:/mirnet/2", settings)
    assert statement is not None and "MODEL_CARD.md" in statement.files

    history = str(client.get_registered_model("mirnet").description)
    assert "| promote | champion | 1 to 2 | done |" in history
    assert "change_id" not in history and "{" not in history


def test_once_recorded_the_same_again_keeps(candidate: Candidate) -> None:
    assert candidate.promote().promoted
    again = candidate.promote()
    assert (again.promoted, again.alias) == (False, "champion")
    assert again.reasons == ("these weights are the champion already",)


@pytest.mark.parametrize("approved", [True, False])
def test_the_answer_of_a_person_is_signed(candidate: Candidate, approved: bool) -> None:
    settings = candidate.run.settings
    asking = load_params("demo", overrides=("promote.approval_within_s=60",))
    run = stages.RunConfig(asking, settings)
    waiting = stages.promote(run, trained=candidate.trained, evaluation=candidate.evaluation)
    (found,) = audit.examine("mirnet", settings, "models:/mirnet@challenger")
    assert found.statement and found.statement.facts.gate.outcome == "wait"
    answer = Approval(approved=approved, who="Ada", why="seen")
    stages.resolve_approval(run, waiting, candidate.evaluation, answer)
    (found,) = audit.examine("mirnet", settings, "models:/mirnet/2")
    assert found.problems == () and found.statement
    gate = found.statement.facts.gate
    assert gate.outcome == ("promote" if approved else "refuse") and "Ada" in gate.reasons[0]
    pinned = stages.pin(None, run)
    assert pinned == ("models:/mirnet/2" if approved else "models:/mirnet/1")
