"""Both flows in small, with the real engines: SQLite MLflow, Ray workers, an S3 server, DVC."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run as MlflowRun
from prefect.artifacts import Artifact
from prefect.testing.utilities import prefect_test_harness

from flows.demo import fill_bucket
from flows.enhance import enhance
from flows.retrain import retrain
from mirnet import stages
from mirnet.config import load_settings
from mirnet.data.versioning import add, init_workspace
from mirnet.errors import DataError, GateRefused, TrainingError
from mirnet.results import RetrainResult
from mirnet.storage.places import open_store
from mirnet.storage.s3server import S3Server
from tests.flows.conftest import TINY, Site
from tests.made_results import LENIENT_GATE


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def retrained(site: Site) -> RetrainResult:
    """One whole retrain flow on two real Ray workers."""
    with pytest.MonkeyPatch.context() as patch:
        site.use(patch)
        return retrain(str(site.data), "demo", [*TINY, *LENIENT_GATE])


def test_retrain_goes_from_data_to_champion(retrained: RetrainResult, site: Site) -> None:
    assert retrained.validation.passed
    assert retrained.validation.version.status == "clean"
    assert retrained.train.num_workers == 2
    assert len(retrained.train.history) == 2
    assert set(retrained.evaluation.methods) == {"input", "autocontrast", "mirnet"}
    assert retrained.promotion.promoted
    assert retrained.promotion.alias == "champion"
    digests = {
        retrained.validation.version.digest,
        retrained.train.digest,
        retrained.evaluation.digest,
    }
    assert len(digests) == 1
    # of the whole id: the first characters are the time, and runs are scheduled many at once
    name = Path(retrained.train.model_dir).name
    assert str(UUID(name.removeprefix("retrain-"))) == name.removeprefix("retrain-")
    bar: Any = Artifact.get("training")
    assert (bar.data, "epoch 2/2: loss" in bar.description) == (100, True)
    for stage in ("validate", "train", "evaluate", "promote"):
        assert json.loads((site.reports / f"{stage}.json").read_text())
    page = Path(retrained.evaluation.report_path or "").read_text(encoding="utf-8")
    assert "data:image/" in page


def test_the_champion_opens_by_its_address(
    retrained: RetrainResult, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.use(monkeypatch)
    dark = np.full((10, 14, 3), 9, np.uint8)
    by_address = stages.open_enhancer("models:/mirnet@champion", compile=False)(dark)
    by_folder = stages.open_enhancer(retrained.train.model_dir, compile=False)(dark)
    assert by_address.shape == dark.shape
    assert np.array_equal(by_address, by_folder)


def test_evaluation_pairs_never_train(retrained: RetrainResult) -> None:
    splits = retrained.validation.splits
    assert not set(splits["train"]) & set(splits["val"])
    assert all(pair.startswith("eval15/") for pair in splits["eval"])
    assert not any(pair.startswith("eval15/") for pair in (*splits["train"], *splits["val"]))


def test_nightly_flow_accounts_for_every_image(
    retrained: RetrainResult, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.use(monkeypatch)
    with S3Server(tmp_path / "s3", buckets=("dark", "bright")) as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        count = fill_bucket(site.data, "s3://dark/tonight")
        first = enhance("s3://dark/tonight", "s3://bright/tonight", params="demo")
        again = enhance("s3://dark/tonight", "s3://bright/tonight", params="demo")
        keys = [o.key for o in open_store("s3://bright/tonight", load_settings()).list()]
    assert first.planned == count
    assert first.enhanced + first.passed_through == count - 1
    assert first.quarantined == 1
    assert first.failed == 0
    assert first.model_version == retrained.promotion.version
    assert again.enhanced == 0
    assert any("truncated.png" in key for key in keys)


def test_a_refused_candidate_leaves_the_champion(
    retrained: RetrainResult, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.use(monkeypatch)
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    with pytest.raises(GateRefused, match="autocontrast"):
        retrain(str(site.data), "demo", [*TINY, "promote.min_gain_db=60"])
    run = stages.load_run_config("demo")
    assert stages.champion(run).ref.version == retrained.promotion.version


def test_a_champion_that_does_not_work_is_taken_back(
    retrained: RetrainResult, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(run: stages.RunConfig, *, version: str) -> None:
        assert stages.champion(run).ref.version == version != retrained.promotion.version
        raise TrainingError("gives no picture")

    site.use(monkeypatch)
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    monkeypatch.setattr(stages, "check_champion", broken)
    with pytest.raises(TrainingError, match="gives no picture"):
        retrain(str(site.data), "demo", [*TINY, *LENIENT_GATE, "train.seed=7"])
    assert (
        stages.champion(stages.load_run_config("demo")).ref.version == retrained.promotion.version
    )


def test_a_broken_pair_stops_the_flow_by_name(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.use(monkeypatch)
    data = tmp_path / "data"
    shutil.copytree(site.data, data)
    victim = sorted((data / "our485" / "low").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:2000])
    with pytest.raises(GateRefused, match=f"our485/{victim.name}"):
        retrain(str(data), "demo", TINY)
    client, validated = last_validation()
    assert validated.data.tags["mirnet.verdict"] == "blocked"
    assert validated.data.metrics["findings/critical"] == 1
    pages = {file.path for file in client.list_artifacts(validated.info.run_id, "data_docs")}
    assert "data_docs/index.html" in pages


def last_validation() -> tuple[MlflowClient, MlflowRun]:
    client = MlflowClient(load_settings().mlflow_uri)
    (experiment,) = client.search_experiments(filter_string="name = 'mirnet-validate'")
    return client, client.search_runs([experiment.experiment_id])[0]


def test_modified_data_stop_unless_allowed(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.use(monkeypatch)
    init_workspace(tmp_path)
    data = tmp_path / "data"
    shutil.copytree(site.data, data)
    add(data)
    extra = sorted((data / "our485" / "low").iterdir())[0]
    extra.unlink()
    with pytest.raises(DataError, match=extra.name):
        retrain(str(data), "demo", TINY)
    # allowed, they come as far as the gate, and MLflow says what they are
    with pytest.raises(GateRefused, match=extra.name):
        retrain(str(data), "demo", TINY, allow_modified=True)
    assert last_validation()[1].data.tags["mirnet.data_status"] == "modified"
