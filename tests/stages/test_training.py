"""The stage: what params alone turn on, and what MLflow shows of a run that was restarted."""

from __future__ import annotations

import io
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient
from PIL import Image

from mirnet import stages
from mirnet.base_model import FOLDER
from mirnet.config import Settings
from mirnet.data.versioning import data_version
from mirnet.errors import UsageError, WeightsError
from mirnet.models import build, save_model
from mirnet.params import Params
from mirnet.results import (
    DataVersion,
    NodeUsage,
    SampleImage,
    TrainResult,
    ValidationResult,
)
from mirnet.stages import RunConfig
from mirnet.stages.models import PROFILE
from mirnet.tracking import EpochLogger, track
from mirnet.training import Listener, TrainRequest, train_model
from mirnet.training.launch import initial_weights
from tests.small_models import SMALLEST
from tests.training.conftest import recipe


@pytest.fixture
def small_params() -> Callable[..., Params]:
    """With the smallest network: the stage packages what it trained."""
    return lambda *overrides: recipe(*SMALLEST, *overrides)


@pytest.fixture
def stage(
    empty_store: Path,
    pairs_dir: Path,
    train_ids: tuple[str, ...],
    val_ids: tuple[str, ...],
    in_process: Settings,
    tmp_path: Path,
) -> Callable[..., TrainResult]:
    """The training stage on the small pairs, tracked in SQLite."""
    in_process.workspace.mkdir(parents=True)
    shutil.copy(empty_store, in_process.workspace / "mlflow.db")
    version = DataVersion(
        path=str(pairs_dir), digest="d1", num_files=16, size=1, status="clean", git_commit=None
    )
    validation = ValidationResult(
        version=version,
        num_pairs={"our485": 8},
        passed=True,
        splits={"train": train_ids, "val": val_ids, "eval": ()},
    )

    def run(params: Params, name: str, **changes: Any) -> TrainResult:
        arguments: dict[str, Any] = {"model_dir": tmp_path / name, "run_name": name}
        return stages.train(
            pairs_dir,
            RunConfig(params, in_process),
            version=version,
            validation=validation,
            **(arguments | changes),
        )

    return run


def _run_of(settings: Settings, result: TrainResult):
    assert result.run_id is not None
    return MlflowClient(settings.mlflow_uri).get_run(result.run_id)


def test_warm_start_by_params_alone(stage, small_params, in_process, tmp_path):
    first = stage(
        small_params("train.num_epochs=3", "train.steps_per_epoch=8", "train.lr=0.004"), "first"
    )
    start = Path(shutil.copytree(first.model_dir, tmp_path / "start"))
    still = ("train.num_epochs=1", "train.steps_per_epoch=1", "train.lr=1e-12")
    warm = stage(small_params(*still, f"train.init_from={start}"), "warm")
    assert warm.best_val_psnr == pytest.approx(first.best_val_psnr, abs=1e-3)
    assert stage(small_params(*still), "cold").best_val_psnr < first.best_val_psnr - 0.5
    assert _run_of(in_process, warm).data.tags["mirnet.init_from"].startswith("start ")


def test_warm_start_from_the_model_in_the_package(stage, small_params):
    weights = initial_weights(FOLDER, small_params("model.n_feat=16", "model.num_streams=3"))
    assert all(value.isfinite().all() for value in weights.values())
    with pytest.raises(WeightsError, match=r"n_feat 16.*n_feat 8") as refused:
        stage(small_params("train.init_from=base"), "other")
    assert len(str(refused.value).splitlines()) == 1


def test_a_teacher_by_params_alone(stage, small_params, in_process, tmp_path):
    torch.manual_seed(0)
    save_model(build("mirnet-xs", n_feat=16), tmp_path / "teacher")
    plain = stage(small_params(), "plain")
    taught = stage(small_params(f"train.distill_from={tmp_path / 'teacher'}"), "taught")
    assert taught.history[-1].train_loss > plain.history[-1].train_loss
    assert _run_of(in_process, taught).data.tags["mirnet.teacher"].startswith("teacher ")


def test_pairs_of_before_are_replayed(stage, small_params, in_process, pairs_dir, tmp_path):
    before = Path(shutil.copytree(pairs_dir, tmp_path / "before"))
    # nothing to enhance: a small loss
    shutil.copytree(before / "our485" / "high", before / "our485" / "low", dirs_exist_ok=True)
    plain = stage(small_params(), "plain")
    mixed = stage(small_params(f"train.replay={{data: {before}, share: 0.5}}"), "mixed")
    assert mixed.history[0].train_loss < 0.9 * plain.history[0].train_loss
    tags = _run_of(in_process, mixed).data.tags
    assert tags["mirnet.replay"] == data_version(before).digest
    profiles = [(Path(result.model_dir) / PROFILE).read_text() for result in (plain, mixed)]
    assert profiles[0] != profiles[1]  # inputs like those of before are no drift
    with pytest.raises(UsageError, match=r"train\.replay\.data: nowhere is not a folder"):
        stage(small_params("train.replay={data: nowhere}"), "refused")
    request = {"root": pairs_dir, "digest": "d", "run_name": "r", "model_dir": tmp_path / "none"}
    with pytest.raises(UsageError, match=r"train\.replay: .*replay_ids"):
        train_model(
            TrainRequest(
                params=small_params(f"train.replay={{data: {before}}}"),
                settings=in_process,
                train_ids=("our485/1.png",),
                val_ids=("our485/2.png",),
                **request,
            ),
            Listener(),
        )


def test_what_is_no_start_is_refused_before_the_run(stage, small_params, in_process, tmp_path):
    with pytest.raises(UsageError, match="nowhere: no such model"):
        stage(small_params("train.init_from=nowhere"), "r1")
    with pytest.raises(UsageError, match=r"nobody"):
        stage(small_params("train.init_from=models:/nobody@champion"), "r2")
    (tmp_path / "junk.pth").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match=r"junk\.pth"):
        stage(small_params(f"train.init_from={tmp_path / 'junk.pth'}"), "r3")


def test_one_mlflow_run_has_the_curves_the_pictures_and_the_nodes(
    stage, small_params, in_process, tmp_path
):
    class Stop(Exception):
        pass

    def stop(metrics):
        if metrics.epoch == 1:
            raise Stop

    params = small_params("train.num_epochs=4", "train.samples_every=1", "train.num_samples=2")
    with pytest.raises(Stop):
        stage(params, "again", progress=stop)
    result = stage(params, "again")

    client = MlflowClient(in_process.mlflow_uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "mirnet-train"]
    runs = client.search_runs([experiment.experiment_id])
    assert [run.info.run_id for run in runs] == [result.run_id]
    assert runs[0].info.status == "FINISHED"
    for key in ("train/loss", "val/psnr", "train/lr", "train/grad_norm", "train/wait_share"):
        assert {m.step for m in client.get_metric_history(result.run_id, key)} == {0, 1, 2, 3}, key
    system = [key for key in runs[0].data.metrics if key.startswith("system/")]
    assert any(key.endswith("/cpu_utilization_percentage") for key in system)
    images = [file.path for file in client.list_artifacts(result.run_id, "images")]
    for epoch in range(4):
        for number in (6, 7):
            wanted = f"{number}.png+step+{epoch}+"
            assert any(wanted in path and path.endswith(".png") for path in images), wanted


def test_a_picture_waits_while_mlflow_is_away(empty_store, settings, tmp_path):
    settings.workspace.mkdir(parents=True)
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{free.getsockname()[1]}"
    jpeg = io.BytesIO()
    Image.new("RGB", (30, 10), "red").save(jpeg, "JPEG")
    picture = SampleImage(epoch=3, pair="our485/7.png", jpeg=jpeg.getvalue())
    usage = NodeUsage(epoch=4, node="10.0.0.1", values={"cpu_utilization_percentage": 50.0})
    waiting = tmp_path / "waiting.jsonl"
    with track(settings, purpose="train", name="away") as run:
        EpochLogger(nowhere, run.run_id, waiting).extra(picture)
        assert waiting.exists()
        EpochLogger(settings.mlflow_uri, run.run_id, waiting).extra(usage)
    assert not waiting.exists()
    client = MlflowClient(settings.mlflow_uri)
    images = [file.path for file in client.list_artifacts(run.run_id, "images")]
    assert any("7.png+step+3+" in path for path in images)
    metrics = client.get_run(run.run_id).data.metrics
    assert metrics["system/10.0.0.1/cpu_utilization_percentage"] == 50
