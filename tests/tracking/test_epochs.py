from __future__ import annotations

import pickle
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mirnet.config import Settings
from mirnet.errors import DataError, ServiceError
from mirnet.params import Params
from mirnet.results import DataVersion, EpochMetrics
from mirnet.tracking import EpochLogger, connect, track
from mirnet.tracking.outbox import deliver


def epoch(number: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        step=10 * number,
        lr=1e-3,
        train_loss=0.1 / number,
        train_psnr=15.0 + number,
        val_psnr=14.0 + number,
    )


def logged(settings: Settings, run_id: str) -> list[tuple[int, float]]:
    history = connect(settings).get_metric_history(run_id, "val/psnr")
    return [(metric.step, metric.value) for metric in history]


@pytest.fixture
def nowhere() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_epochs_arrive_from_a_pickled_logger(store: Settings, tmp_path: Path) -> None:
    with track(store, purpose="train", name="run") as run:
        logger = EpochLogger(store.mlflow_uri, run.run_id, tmp_path / "pending.jsonl")
        copy = pickle.loads(pickle.dumps(logger))
        for number in (1, 2):
            copy(epoch(number))
    assert logged(store, run.run_id) == [(1, 15.0), (2, 16.0)]
    metrics = connect(store).get_run(run.run_id).data.metrics
    assert metrics["train/loss"] == 0.05 and metrics["train/lr"] == 1e-3
    assert "val/ssim" not in metrics, "what was not measured is not logged"
    assert not (tmp_path / "pending.jsonl").exists()


def test_training_goes_on_without_mlflow_and_nothing_is_lost(
    store: Settings, tmp_path: Path, nowhere: str, caplog: pytest.LogCaptureFixture
) -> None:
    pending = tmp_path / "pending" / "run.jsonl"
    with track(store, purpose="train", name="run") as run:
        EpochLogger(store.mlflow_uri, run.run_id, pending)(epoch(1))
        away = EpochLogger(nowhere, run.run_id, pending)
        away(epoch(2))
        away(epoch(3))
        assert logged(store, run.run_id) == [(1, 15.0)]
        warnings = [r for r in caplog.records if "mirnet runs deliver" in r.getMessage()]
        assert len(warnings) == 1 and nowhere in warnings[0].getMessage()
        # MLflow is back: the next epoch brings the waiting ones along
        EpochLogger(store.mlflow_uri, run.run_id, pending)(epoch(4))
    assert logged(store, run.run_id) == [(1, 15.0), (2, 16.0), (3, 17.0), (4, 18.0)]
    assert not pending.exists()


def test_delivery_by_hand_twice_and_after_half_a_line(
    store: Settings, tmp_path: Path, nowhere: str
) -> None:
    pending = tmp_path / "run.jsonl"
    with track(store, purpose="train", name="run") as run:
        away = EpochLogger(nowhere, run.run_id, pending)
        away(epoch(1))
        away(epoch(2))
    with pytest.raises(ServiceError):
        deliver(nowhere, pending)
    kept = pending.read_text()
    pending.write_text(kept + '{"run_id": "abc", "timest')
    assert deliver(store.mlflow_uri, pending) == 2
    pending.write_text(kept)
    assert deliver(store.mlflow_uri, pending) == 2
    assert logged(store, run.run_id) == [(1, 15.0), (2, 16.0)]


def test_files_that_are_not_ours(store: Settings, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing waits"):
        deliver(store.mlflow_uri, tmp_path / "no.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_text('{"a": 1}\n{"b": 2}\n')
    with pytest.raises(DataError, match=r"other\.jsonl:1"):
        deliver(store.mlflow_uri, other)


def test_a_run_whose_mlflow_goes_away_loses_nothing(
    store: Settings, version: DataVersion, tmp_path: Path, nowhere: str
) -> None:
    """All kinds of entries wait, and the next run on this machine brings them to MLflow."""
    page = tmp_path / "page.html"
    page.write_text("<p>hello")
    with track(store, purpose="evaluate", name="first") as run:
        run.outbox.tracking_uri = nowhere
        run.log_params(Params())
        run.log_data(version, context="evaluation", split="eval15")
        run.log_metrics({"eval/psnr": 17.5, "eval/odd": float("nan")}, data=version)
        run.log_table(pd.DataFrame({"psnr": [1.5, float("nan")]}), "scores.json")
        run.log_image(np.zeros((8, 8, 3), np.uint8), "comparison")
        run.log_text("{}", "splits.json")
        run.log_file(page)
        run.set_tags({"mirnet.note": "kept", "mirnet.none": None})
        page.unlink()
    client = connect(store)
    assert client.get_run(run.run_id).info.status == "RUNNING"
    with track(store, purpose="evaluate", name="second"):
        pass
    found = client.get_run(run.run_id)
    assert found.info.status == "FINISHED"
    assert found.data.params["train.lr"] == "0.0002"
    assert found.data.metrics["eval/psnr"] == 17.5
    assert found.data.tags["mirnet.note"] == "kept"
    assert found.inputs.dataset_inputs[0].dataset.digest == version.digest
    names = {artifact.path for artifact in client.list_artifacts(run.run_id)}
    assert {"scores.json", "images", "splits.json", "page.html"} <= names
    assert not list((store.workspace / "pending").iterdir())


def test_a_refusal_is_not_kept_for_later(store: Settings) -> None:
    with track(store, purpose="train", name="run") as run:
        with pytest.raises(ServiceError, match=r"(?i)invalid") as caught:
            run.log_metrics({"no\ngood": 1.0})
        assert not caught.value.transient
    assert not run.outbox.path.exists()
