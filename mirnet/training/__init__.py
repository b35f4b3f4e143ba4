"""Training: losses, schedules, the loop, checkpoints, and what launches it.

Only :mod:`mirnet.training.ray.launcher` and its neighbours ``ray_*`` know Ray; the loop sees a
:class:`~mirnet.training.context.Context`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from mirnet.config import Settings
from mirnet.params import Params
from mirnet.results import EpochMetrics, NodeUsage, SamplePicture, TrainResult

IN_PROCESS = "in-process"


def train_model(
    *,
    root: Path,
    train_ids: Sequence[str],
    val_ids: Sequence[str],
    params: Params,
    settings: Settings,
    digest: str,
    run_name: str,
    model_dir: Path,
    on_epoch: Callable[[EpochMetrics], None] | None = None,
    on_progress: Callable[[EpochMetrics], None] | None = None,
    on_event: Callable[[NodeUsage | SamplePicture], None] | None = None,
    mlflow_run_id: str | None = None,
    init_from: Path | None = None,
    distill_from: Path | None = None,
) -> TrainResult:
    """Train on pairs of ``root`` and write the best model by validation PSNR to ``model_dir``.

    The same ``run_name`` on the same checkpoint store goes on where an earlier call ended.
    ``settings.ray_address`` chooses where: this process, a Ray of our own, or a cluster.

    Args:
        root: data set in the LoL layout.
        train_ids, val_ids: pair ids such as ``our485/1.png``; they must not overlap.
        digest: version of the data, kept in the result and in the checkpoints.
        on_epoch: called once per epoch, in the process that controls training; must pickle.
        on_progress: the same in this process.
        on_extra: sample pictures and the usage of nodes, in this process.
        mlflow_run_id: copied to the result.
        init_from: weights to start from, of the same architecture: a model folder or a published
            checkpoint. Ignored when the run already has a checkpoint.
        distill_from: a teacher, usually larger, whose output is learned besides the reference.

    Raises:
        UsageError: settings that cannot work, such as a batch that the workers cannot share.
        DataError: a pair is missing or smaller than a patch; names the pair.
        TrainingError: training failed, or the run name belongs to another recipe.
        WeightsError: ``init_from`` or ``distill_from`` cannot be used; names the file.
        ServiceError: Ray or the checkpoint store cannot be reached; names the address.
    """
    from mirnet.training.launch import launch

    return launch(
        root=root,
        train_ids=train_ids,
        val_ids=val_ids,
        params=params,
        settings=settings,
        digest=digest,
        run_name=run_name,
        model_dir=model_dir,
        on_epoch=on_epoch,
        on_progress=on_progress,
        on_event=on_event,
        mlflow_run_id=mlflow_run_id,
        init_from=init_from,
        distill_from=distill_from,
    )
