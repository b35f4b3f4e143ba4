"""The stage ``train``."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mirnet.cost import of_training
from mirnet.errors import UsageError
from mirnet.params import Params
from mirnet.results import DataVersion, EpochMetrics, OpenedModel, TrainResult, ValidationResult
from mirnet.stages.data import passed_validation
from mirnet.stages.models import PROFILE, log_trained, open_model
from mirnet.stages.run import RunConfig, run_tags, training_tags

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)


def train(
    data: Path,
    run: RunConfig,
    *,
    version: DataVersion,
    model_dir: Path,
    validation: ValidationResult | None = None,
    run_name: str | None = None,
    tags: Mapping[str, str | None] | None = None,
    progress: Callable[[EpochMetrics], None] | None = None,
) -> TrainResult:
    """Train on the training scenes of the validated data; one MLflow run per run name.

    ``tags`` are further ones of the run. ``progress`` is called in this process once per epoch.

    Raises:
        GateRefused: the data do not pass validation.
        UsageError: ``train.init_from`` or ``train.distill_from`` is not a model.
        WeightsError: it is of another architecture, or cannot be read.
        ServiceError: MLflow, Ray or the checkpoint store cannot be reached.
    """
    from mirnet.tracking import EpochLogger, check_tracking, track
    from mirnet.tracking.recorded import PARAMS, params_text
    from mirnet.training import Listener, TrainRequest, train_model

    check_tracking(run.settings)
    validation = validation or passed_validation(data, run, version)
    splits = validation.splits
    name = run_name or f"{run.params.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
    start, teacher = (
        open_model(source, run) if source else None
        for source in (run.params.train.init_from, run.params.train.distill_from)
    )
    replayed = replayed_pairs(run.params)
    origins = {
        "mirnet.init_from": origin(start),
        "mirnet.teacher": origin(teacher),
        "mirnet.replay": replayed.digest or None,
    }
    given = run_tags(run, version) | training_tags(run) | origins | dict(tags or {})
    log.info("training run %s; the same name resumes it", name)
    with track(run.settings, purpose="train", name=name, key=name, tags=given) as tracked:
        tracked.log_params(run.params)
        tracked.log_text(params_text(run.params), PARAMS)
        tracked.log_data(version, context="training", split="train")
        tracked.log_text(json.dumps(splits, indent=2), "splits.json")
        tracked.log_preview(_first_pair(data, splits["val"] or splits["train"]))
        if validation.docs_path and Path(validation.docs_path).is_file():
            tracked.log_file(Path(validation.docs_path).parent, "validation")
        pending = (run.settings.workspace / "pending").resolve()
        uri, run_id = run.settings.mlflow_uri, tracked.run_id
        request = TrainRequest(
            root=data,
            train_ids=splits["train"],
            val_ids=splits["val"],
            params=run.params,
            settings=run.settings,
            digest=version.digest,
            run_name=name,
            model_dir=model_dir,
            mlflow_run_id=run_id,
            init_from=start.folder if start else None,
            distill_from=teacher.folder if teacher else None,
            replay_ids=replayed.ids,
            replay_digest=replayed.digest,
        )
        listener = Listener(
            on_epoch=EpochLogger(uri, run_id, pending / f"{run_id}.jsonl"),
            on_progress=progress,
            # not the process of the epochs, so another file for queued records
            on_event=EpochLogger(uri, run_id, pending / f"{run_id}-extra.jsonl").extra,
        )
        result = train_model(request, listener)
        write_profile(data, splits["train"], model_dir, replayed)
        cost = of_training(run.settings, result.history)
        result = result.model_copy(update={"cost": cost})
        best = {"val/best_psnr": result.best_val_psnr}
        model_id = log_trained(model_dir, run, run_id=run_id, version=version)
        tracked.log_metrics(best | cost.metrics(), data=version, model_id=model_id)
        if model_id is None:
            tracked.log_file(model_dir, "model")
    result.save(run.report("train"))
    return result


def _first_pair(data: Path, ids: Sequence[str]) -> NDArray[np.uint8]:
    """Low and reference side by side, until the network has an output."""
    from mirnet.data.loading import load_pairs
    from mirnet.images.thumbnails import side_by_side

    ((low, high),) = load_pairs(data, ids[:1])
    return side_by_side([low, high])


def origin(model: OpenedModel | None) -> str | None:
    """An initial model or teacher as a tag: name, version, weights."""
    if model is None:
        return None
    ref = model.ref
    parts = (ref.name, ref.version and f"version {ref.version}", ref.weights_digest)
    return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Replayed:
    """The training pairs of the folder of ``train.replay``."""

    folder: Path
    ids: tuple[str, ...]
    digest: str


def replayed_pairs(params: Params) -> Replayed:
    """Those of the params; without ``train.replay`` none.

    Raises:
        UsageError: the folder does not exist, or has no training pairs.
        DataError: it cannot be read as pairs.
    """
    from mirnet.data.layout import TRAIN_SPLIT, find_pairs
    from mirnet.data.versioning import data_version

    replay = params.train.replay
    if replay is None:
        return Replayed(Path(), (), "")
    folder = Path(replay.data)
    if not folder.is_dir():
        raise UsageError(f"train.replay.data: {folder} is not a folder")
    pairs = [pair for pair in find_pairs(folder) if pair.split == TRAIN_SPLIT]
    if not pairs:
        raise UsageError(f"train.replay.data: {folder} has no pairs in {TRAIN_SPLIT}")
    ids = tuple(f"{pair.split}/{pair.name}" for pair in pairs)
    return Replayed(folder, ids, data_version(folder).digest)


def write_profile(
    data: Path, ids: tuple[str, ...], model_dir: Path, replayed: Replayed | None = None
) -> None:
    """Write the profile of the training inputs beside the weights, for the detection of drift."""
    from mirnet.batch.drift import build_profile
    from mirnet.data.loading import load_pairs
    from mirnet.images.stats import measure

    sources = [(data, pair_id) for pair_id in ids]
    if replayed is not None:
        sources += [(replayed.folder, pair_id) for pair_id in replayed.ids]
    lows = (low for folder, pair_id in sources for low, _ in load_pairs(folder, [pair_id]))
    profile = build_profile((measure(low), low.shape[1], low.shape[0]) for low in lows)
    (model_dir / PROFILE).write_text(json.dumps(profile, indent=2) + "\n", encoding="utf-8")
