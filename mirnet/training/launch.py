"""From pair ids to a trained model: load, select the backend, export the best."""

from __future__ import annotations

import logging
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn

from mirnet.config import Settings
from mirnet.data.loading import load_pairs
from mirnet.errors import TrainingError, UsageError, WeightsError
from mirnet.hardware import use_kernel_cache
from mirnet.models import load_model, num_parameters
from mirnet.objectives.perceptual.features import read_vgg
from mirnet.params import Params
from mirnet.results import EpochMetrics, TrainResult
from mirnet.storage.arrow import open_filesystem
from mirnet.training import IN_PROCESS, Listener, TrainRequest
from mirnet.training.checkpoints import BEST, TrainingProgress, copy_weights, read_progress
from mirnet.training.context import InProcess
from mirnet.training.data.packs import pack_key, pack_on_disk
from mirnet.training.data.pairs import REPLAYED, PackedPairs, Pixels, check_patch_fits, pack_pairs
from mirnet.training.job import Job, JobOutcome
from mirnet.training.loop import fit
from mirnet.training.store import CheckpointStore

logger = logging.getLogger(__name__)

Pair = tuple[Pixels, Pixels]


def launch(request: TrainRequest, listener: Listener) -> TrainResult:
    """See :func:`mirnet.training.train_model`."""
    started = time.monotonic()
    params, settings = request.params, request.settings
    job = load_job(request)
    if params.train.compile:
        use_kernel_cache(settings.cache("kernels"))
    logged = replace(listener, on_progress=_with_log(listener.on_progress, params))
    outcome = _run(job, settings, request.run_name, logged)
    with outcome.checkpoint as folder:
        progress = export_best(folder, request.model_dir)
    return TrainResult(
        run_id=request.mlflow_run_id,
        model_dir=str(request.model_dir),
        checkpoint_uri=outcome.checkpoint_uri,
        model_name=params.model.name,
        num_parameters=num_parameters(params.model.config.build()),
        digest=request.digest,
        best_epoch=progress.best_epoch,
        best_val_psnr=progress.best_val_psnr,
        history=tuple(progress.history),
        num_workers=outcome.num_workers,
        seconds=time.monotonic() - started,
    )


def load_job(request: TrainRequest) -> Job:
    """Check a request, and load its pairs and networks.

    Raises:
        UsageError, DataError, WeightsError: as :func:`mirnet.training.train_model`.
    """
    check_request(request)
    params = request.params
    train = _load(request, request.train_ids, request.replay_ids)
    val = _load(request, request.val_ids)
    sizes = [params.train.patch_size, *(s.patch_size for s in params.train.progressive)]
    check_patch_fits(train, max(sizes))
    teacher, features = request.distill_from, params.train.perceptual_weights
    return Job(
        params=params,
        train=train,
        val=val,
        digest=request.digest,
        initial=initial_weights(request.init_from, params) if request.init_from else None,
        teacher=load_model(teacher) if teacher else None,
        features=read_vgg(Path(features)) if features else None,
    )


def _with_log(
    on_progress: Callable[[EpochMetrics], None] | None, params: Params
) -> Callable[[EpochMetrics], None]:
    def log(metrics: EpochMetrics) -> None:
        logger.info("%s", metrics.describe(params.train.num_epochs))
        if on_progress is not None:
            on_progress(metrics)

    return log


def _run(job: Job, settings: Settings, run_name: str, listener: Listener) -> JobOutcome:
    """Train on the configured backend."""
    if settings.ray_address == IN_PROCESS:
        filesystem, path = open_filesystem(settings)
        store = CheckpointStore(filesystem, f"{path}/{run_name}/in-process")
        fit(InProcess(store, listener), job)
        return JobOutcome(1, store.uri, store.latest())
    if settings.ray_address and settings.ray_address.startswith(("http://", "https://")):
        from mirnet.training.ray.jobs import run_job

        return run_job(job, settings=settings, run_name=run_name, listener=listener)
    from mirnet.training.ray.launcher import launch_training

    return launch_training(job, settings=settings, run_name=run_name, listener=listener)


def check_request(request: TrainRequest) -> None:
    """Refuse invalid requests before anything is loaded or started.

    Raises:
        UsageError: names the setting, the parameter or the pair.
    """
    run_name, settings, recipe = request.run_name, request.settings, request.params.train
    train_ids, val_ids = request.train_ids, request.val_ids
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*", run_name):
        raise UsageError(f"run name {run_name!r}: letters, digits, '_', '.' and '-' only")
    if not train_ids or not val_ids:
        role = "training" if not train_ids else "validation"
        raise UsageError(f"no {role} pairs: look at validate.val_fraction and the data folder")
    if recipe.replay is not None and not request.replay_ids:
        raise UsageError("train.replay: the request names no pairs of that folder (replay_ids)")
    both = sorted(set(train_ids) & set(val_ids))
    if both:
        raise UsageError(f"{both[0]} is a training pair and a validation pair")
    architecture = request.params.model.config.architecture
    architecture.check_plain()
    architecture.precision(recipe.precision)
    if architecture.batch_statistics and recipe.accumulate > 1:
        raise UsageError(
            f"train.accumulate {recipe.accumulate}: {architecture.title} normalises with "
            "statistics of the batch, which must not be computed in parts"
        )
    if architecture.batch_statistics:
        _check_single_patches(request.params)
    if settings.ray_address == IN_PROCESS:
        return
    least, most = settings.worker_range
    for batch_size in (recipe.batch_size, *(stage.batch_size for stage in recipe.progressive)):
        if least < 1 or most > batch_size or (least == most and batch_size % least):
            raise UsageError(
                f"train.batch_size {batch_size} does not divide over MIRNET_NUM_WORKERS "
                f"{settings.num_workers}: the batch is global, change one of the two"
            )


def _check_single_patches(params: Params) -> None:
    """Refuse batches of one patch where a batch normalisation has one value per channel.

    Raises:
        UsageError: names the network.
    """
    config, title = params.model.config, params.model.config.architecture.title

    def check(_: nn.Module, given: tuple[Tensor]) -> None:
        if given[0][:, 0].numel() < 2:
            raise UsageError(
                f"train.batch_size 1: {title} normalises over the batch, and with one patch some "
                "of its channels have a single value; take at least 2"
            )

    recipe = params.train
    later = ((stage.batch_size, stage.patch_size) for stage in recipe.progressive)
    for batch_size, side in ((recipe.batch_size, recipe.patch_size), *later):
        if batch_size > 1:
            continue
        with torch.device("meta"):  # shapes without arithmetic
            network, patch = config.build(), torch.empty(1, 3, side, side)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.register_forward_pre_hook(check)
        network.train()(patch)


def initial_weights(source: Path, params: Params) -> dict[str, Tensor]:
    """Initial weights, checked against the network of the params.

    Raises:
        WeightsError: unreadable, or of another architecture; names the file.
    """
    model, wanted = load_model(source), params.model.config
    if model.config != wanted:
        raise WeightsError(
            f"{source} does not fit model.name {params.model.name} and its sizes: it is "
            f"{model.config}, they are {wanted}; warm start needs the same architecture"
        )
    return copy_weights(model)


def export_best(folder: Path | None, model_dir: Path) -> TrainingProgress:
    """Replace ``model_dir`` by the best model of a checkpoint folder.

    Raises:
        TrainingError: the checkpoint is missing or has no scored model.
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


def _load(request: TrainRequest, ids: Sequence[str], replayed: Sequence[str] = ()) -> PackedPairs:
    """Pairs in memory, or mapped from a pack if too large; the size is estimated by the first.

    Replayed ones come last.
    """
    root, settings = request.root, request.settings
    replay = request.params.train.replay
    sources = {pair_id: (root, pair_id) for pair_id in ids}
    if replay is not None:
        sources |= {f"{REPLAYED}{i}": (Path(replay.data), i) for i in replayed}
    names = list(sources)

    def load(part: Sequence[str]) -> list[Pair]:
        pairs: list[Pair] = []
        for folder, group in groupby((sources[name] for name in part), lambda source: source[0]):
            pairs += load_pairs(folder, [pair_id for _, pair_id in group])
        return pairs

    low, high = load(names[:1])[0]
    if (low.nbytes + high.nbytes) * len(names) <= settings.pack_above_gib * 2**30:
        return pack_pairs(names, load(names))
    digest = f"{request.digest} {request.replay_digest}" if replayed else request.digest
    folder = settings.cache("packs") / pack_key(digest, names)
    logger.info("%d pairs are decoded into %s, once", len(names), folder)
    return pack_on_disk(names, load, folder)
