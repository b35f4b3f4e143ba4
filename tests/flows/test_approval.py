"""A person approves, refuses, or does not answer: the real pause on a real Prefect server."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from flows import approval
from flows.retrain import decide
from mirnet import stages
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.params import load_params
from mirnet.results import EvaluationResult, PromotionResult, TrainResult
from mirnet.tracking import aliases, registry, track
from tests import made_results
from tests.small_models import make_model

PAIRS = 8


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@dataclass(frozen=True)
class Judged:
    """A trained model, and scores that the gate likes."""

    run: stages.RunConfig
    trained: TrainResult
    evaluation: EvaluationResult

    def asking(self, within_s: int) -> stages.RunConfig:
        params = load_params("demo", overrides=(f"promote.approval_within_s={within_s}",))
        return stages.RunConfig(params, self.run.settings)


def plant(root: Path, empty_store: Path) -> Judged:
    settings = Settings(workspace=root / "workspace", reports_dir=root / "reports")
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    model_dir = make_model(root / "model", seed=0)
    with track(settings, purpose="train", name="trained") as run:
        pass
    registry.register(model_dir, name="mirnet", run_id=run.run_id, settings=settings)
    columns = {"width": 600, "height": 400, "seconds": 0.1, "added_clipping": 0.0}
    columns |= {"colour_cast": 1.0, "luma_ratio": 1.0}
    rows = [
        {"pair_id": str(i), "method": method, "psnr": psnr + i / 10, **columns}
        for method, psnr in (("mirnet", 20.0), ("autocontrast", 11.0))
        for i in range(PAIRS)
    ]
    pd.DataFrame(rows).to_parquet(root / "scores.parquet")
    trained = made_results.trained(run.run_id, model_dir)
    evaluation = EvaluationResult(
        model=str(model_dir),
        digest="d48f.dir",
        split="eval15",
        methods={"mirnet": made_results.score(PAIRS)},
        scores_path=str(root / "scores.parquet"),
        seconds=1.0,
    )
    return Judged(stages.RunConfig(load_params("demo"), settings), trained, evaluation)


@pytest.fixture(scope="module")
def planted(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Judged:
    return plant(tmp_path_factory.mktemp("planted"), empty_store)


@pytest.fixture
def judged(planted: Judged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Judged:
    """The same in a store of the test's own; nothing waits longer than it must."""
    monkeypatch.setattr(approval, "POLL_S", 1)
    settings = Settings(workspace=tmp_path / "workspace", reports_dir=tmp_path / "reports")
    settings.workspace.mkdir()
    shutil.copy(planted.run.settings.workspace / "mlflow.db", settings.workspace / "mlflow.db")
    return Judged(
        stages.RunConfig(planted.run.params, settings), planted.trained, planted.evaluation
    )


@flow
def deciding(judged: Judged, within_s: int) -> PromotionResult:
    return decide(judged.asking(within_s), judged.trained, judged.evaluation)


def held(judged: Judged) -> dict[str, str]:
    """Version by alias."""
    return {
        alias: version.version
        for version in registry.list_versions("mirnet", judged.run.settings)
        for alias in version.aliases
    }


def answer_once_paused(judged: Judged, answer: dict[str, object], seen: list[object]) -> None:
    """What a person does: find the paused run, look at the registry, fill in the form."""
    with get_client(sync_client=True) as client:
        for _ in range(600):
            paused = [r for r in client.read_flow_runs() if r.state and r.state.is_paused()]
            if paused and held(judged).get("challenger"):
                seen.append(held(judged))
                seen.append(client.resume_flow_run(paused[0].id, run_input=answer).status.value)
                return
            time.sleep(0.2)


def run_and_answer(
    judged: Judged, answer: dict[str, object], within_s: int = 300
) -> tuple[PromotionResult, list[object]]:
    seen: list[object] = []
    person = threading.Thread(target=answer_once_paused, args=(judged, answer, seen))
    person.start()
    result = deciding(judged, within_s)
    person.join()
    return result, seen


def gate_tags(judged: Judged) -> tuple[str, str]:
    tags = registry.get_version("models:/mirnet/1", judged.run.settings).tags
    return tags["mirnet.gate"], tags["mirnet.gate_reasons"]


def test_an_approved_model_goes_into_service(judged: Judged) -> None:
    answer = {"approved": True, "who": "Ada", "why": "pictures look right"}
    result, seen = run_and_answer(judged, answer)
    assert seen == [{"challenger": "1"}, "ACCEPT"], "no champion before the answer"
    assert result.promoted and result.alias == "champion"
    assert held(judged) == {"champion": "1"}
    last = aliases.history("mirnet", judged.run.settings)[-1]
    assert last.action == "promote" and last.why.startswith("approved by Ada: pictures look right")
    assert gate_tags(judged)[0] == "promote"


def test_a_refused_model_keeps_who_and_why(judged: Judged) -> None:
    answer = {"approved": False, "who": "Ada", "why": "green faces"}
    result, seen = run_and_answer(judged, answer)
    assert seen == [{"challenger": "1"}, "ACCEPT"]
    assert not result.promoted and result.alias is None
    assert held(judged) == {}
    assert gate_tags(judged) == ("refuse", "refused by Ada: green faces")
    actions = [change.action for change in aliases.history("mirnet", judged.run.settings)]
    assert actions == ["challenge", "withdraw"]


def test_silence_refuses(judged: Judged) -> None:
    result = deciding(judged, 2)
    assert not result.promoted and result.alias is None
    assert held(judged) == {}
    assert gate_tags(judged) == ("refuse", "refused by nobody: no answer within 2 s")


def test_an_answer_without_a_name_is_no_answer(judged: Judged) -> None:
    result, seen = run_and_answer(judged, {"approved": True}, within_s=20)
    assert seen[1] != "ACCEPT"
    assert not result.promoted and held(judged) == {}


def test_without_a_server_nobody_could_answer() -> None:
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        approval.check_approval(None)
        with pytest.raises(UsageError, match="needs a Prefect server"):
            approval.check_approval(60)
