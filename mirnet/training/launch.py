"""From pair ids to a trained model: load, choose where to run, export the best."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from mirnet.config import Params, Settings
from mirnet.data.loading import load_pairs
from mirnet.errors import TrainingError, UsageError
from mirnet.models import build, num_parameters
from mirnet.results import EpochMetrics, TrainResult
from mirnet.training import IN_PROCESS
from mirnet.training.checkpoints import BEST, Progress, read_progress
from mirnet.training.context import InProcess
from mirnet.training.loop import Job, fit
from mirnet.training.pairs import PackedPairs, check_patch_fits, pack_pairs
from mirnet.training.store import CheckpointStore, open_filesystem


def launch(
    *,
    root: Path,
    train_ids: Sequence[str],
    val_ids: Sequence[str],
    params: Params,
    settings: Settings,
    digest: str,
    run_name: str,
    model_dir: Path,
    on_epoch: Callable[[EpochMetrics], None] | None,
    mlflow_run_id: str | None,
) -> TrainResult:
    """See :func:`mirnet.training.train_model`."""
    started = time.monotonic()
    check_request(train_ids, val_ids, params, settings, run_name)
    train, val = _load(root, train_ids), _load(root, val_ids)
    check_patch_fits(train, params.train.patch_size)
    job = Job(params=params, train=train, val=val, digest=digest)

    if settings.ray_address == IN_PROCESS:
        filesystem, path = open_filesystem(settings)
        store = CheckpointStore(filesystem, f"{path}/{run_name}/in-process")
        fit(InProcess(store, on_epoch), job)
        num_workers, uri = 1, store.uri
        with store.latest() as folder:
            progress = export_best(folder, model_dir)
    else:
        from mirnet.training.ray_launcher import launch_training

        outcome = launch_training(job, settings=settings, run_name=run_name, on_epoch=on_epoch)
        num_workers, uri = outcome.num_workers, outcome.checkpoint_uri
        with outcome.checkpoint() as folder:
            progress = export_best(folder, model_dir)

    return TrainResult(
        run_id=mlflow_run_id,
        model_dir=str(model_dir),
        checkpoint_uri=uri,
        model_name=params.model.name,
        num_parameters=num_parameters(build(params.model)),
        digest=digest,
        best_epoch=progress.best_epoch,
        best_val_psnr=progress.best_val_psnr,
        history=tuple(progress.history),
        num_workers=num_workers,
        seconds=time.monotonic() - started,
    )


def check_request(
    train_ids: Sequence[str],
    val_ids: Sequence[str],
    params: Params,
    settings: Settings,
    run_name: str,
) -> None:
    """Refuse what cannot work before anything is loaded or started.

    Raises:
        UsageError: names the setting, the parameter or the pair.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", run_name):
        raise UsageError(f"run name {run_name!r}: letters, digits, '_', '.' and '-' only")
    if not train_ids or not val_ids:
        role = "training" if not train_ids else "validation"
        raise UsageError(f"no {role} pairs: look at validate.val_fraction and the data folder")
    both = sorted(set(train_ids) & set(val_ids))
    if both:
        raise UsageError(f"{both[0]} is a training pair and a validation pair")
    least, most = settings.worker_range
    batch_size = params.train.batch_size
    if settings.ray_address == IN_PROCESS:
        return
    if least < 1 or most > batch_size or (least == most and batch_size % least):
        raise UsageError(
            f"train.batch_size {batch_size} does not divide over MIRNET_NUM_WORKERS "
            f"{settings.num_workers}: the batch is global, change one of the two"
        )


def export_best(folder: Path | None, model_dir: Path) -> Progress:
    """Put the best model of a checkpoint folder in place of ``model_dir``.

    Raises:
        TrainingError: the checkpoint is missing or holds no scored model.
    """
    if folder is None or not (folder / BEST).is_dir():
        raise TrainingError("training ended without a scored checkpoint: nothing to export")
    model_dir.parent.mkdir(parents=True, exist_ok=True)
    fresh = model_dir.with_name(f".{model_dir.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(folder / BEST, fresh)
    shutil.rmtree(model_dir, ignore_errors=True)
    fresh.replace(model_dir)
    return read_progress(folder)


def _load(root: Path, ids: Sequence[str]) -> PackedPairs:
    return pack_pairs(ids, load_pairs(root, ids))
