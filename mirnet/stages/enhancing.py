"""The stage ``enhance``: a batch of images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

from mirnet.base_model import BASE, FOLDER
from mirnet.config import refuse_credentials
from mirnet.errors import ServiceError, StorageError, TooManyBad, UsageError
from mirnet.results import EnhanceResult, OpenedModel
from mirnet.stages.models import (
    PROFILE,
    champion_address,
    champion_or_base,
    check_unchanged,
    load_enhancer,
    open_model,
)
from mirnet.stages.run import RunConfig

if TYPE_CHECKING:
    from mirnet.batch.drift import Profile
    from mirnet.batch.plan import BatchPlan
    from mirnet.inference import Enhancer

logger = logging.getLogger(__name__)


def enhance(
    source: str,
    target: str,
    run: RunConfig,
    *,
    model: str | None = None,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> EnhanceResult:
    """Enhance the images that are not done yet; every image is counted in the result.

    Args:
        source: an image, a folder or s3://bucket/prefix.
        model: a folder, ``models:/NAME@ALIAS`` or ``base``; none: the champion.
        limit: maximum number of images.
        progress: called with the numbers of finished images and of images to do.

    Raises:
        UsageError: there is no champion yet, no key to verify it with, or source or target is not
            allowed.
        UntrustedModel: the model has no valid signature, or its alias was moved by something else.
        StorageError: source or target cannot be reached, read or written.
        TooManyBad: more images were bad than the params allow; the result is saved first.
    """
    from mirnet.batch.run import LazyEnhance, run_batch

    refuse_credentials(source, target, model)
    opened = _open(model, run)
    try:
        result = run_batch(
            source,
            target,
            # loaded on the first image, in each process that enhances
            enhance=LazyEnhance(partial(load_anywhere, opened, run)),
            model=opened.ref,
            params=run.params.enhance,
            settings=run.settings,
            progress=progress,
            limit=limit,
            reference=_reference(opened),
        )
    except TooManyBad as bad:
        _publish(bad.result, opened, run)
        raise
    if not result.held_by:  # the other job writes its own report
        _publish(result, opened, run)
    return result


def usual_model(source: str, target: str, run: RunConfig) -> str:
    """The model for a person who names none: the champion, before the first promotion ``base``.

    Raises:
        UsageError: it would be ``base``, and source or target is in a bucket. What fills buckets
            runs unattended, and outputs of ``base`` would be kept when there is a champion.
        ServiceError: the registry cannot be reached.
    """
    from mirnet.storage.places import is_s3

    address = champion_or_base(run)
    if address == BASE and (is_s3(source) or is_s3(target)):
        raise UsageError(
            f"no champion in {run.settings.mlflow_uri} yet: run `mirnet promote` first. The model "
            f"in the package is used for buckets only if it is named: --model {BASE}"
        )
    return address


def pin(model: str | None, run: RunConfig) -> str:
    """An address with a fixed version, independent of later alias moves; none: the champion's.

    Raises:
        UsageError: there is no champion yet, no such folder or version, or no key to verify it.
        UntrustedModel: the version has no valid signature, or its alias was moved by something
            else.
    """
    opened = _open(model, run)
    if opened.packaged or opened.ref.version is None:
        return str(model)
    return f"models:/{opened.ref.name}/{opened.ref.version}"


def _publish(result: EnhanceResult, model: OpenedModel, run: RunConfig) -> None:
    try:
        result.save(run.report("enhance"))
    except OSError as error:  # the records of the run are in the target
        logger.warning("%s: not written: %s", run.report("enhance"), error.strerror or error)
    _track(result, model, run)


def load_anywhere(model: OpenedModel, run: RunConfig) -> Enhancer:
    """Load the model of the run, also on a machine that does not have its folder.

    Raises:
        WeightsError: a file is not the one that the run began with.
    """
    folder = FOLDER if model.packaged else model.folder
    if not folder.exists() and model.ref.version is not None:
        from mirnet.tracking.registry import fetch

        folder = fetch(f"models:/{model.ref.name}/{model.ref.version}", run.settings)
    check_unchanged(folder, model)
    return load_enhancer(folder, run, compile=True)


def read_contact(result: EnhanceResult, run: RunConfig) -> str | None:
    """The contact sheet as HTML; none if the run wrote none or it is not readable."""
    from mirnet.storage.places import open_store

    if result.contact_uri is None:
        return None
    folder, _, name = result.contact_uri.rpartition("/")
    try:
        return open_store(folder, run.settings).get(name).data.decode()
    except (StorageError, UnicodeDecodeError) as error:
        logger.warning("%s: %s", result.contact_uri, error)
        return None


def _track(result: EnhanceResult, model: OpenedModel, run: RunConfig) -> None:
    """Log drift of the inputs and counts of rejected outputs to MLflow.

    A failure of MLflow is only logged.
    """
    from mirnet.tracking import track

    if model.ref.run_id is None or not (result.drift or result.harm):
        return
    fates = ("enhanced", "passed_through", "skipped", "quarantined", "failed")
    metrics = {f"drift/{column}": distance for column, distance in result.drift.items()}
    metrics |= {f"images/{fate}": float(getattr(result, fate)) for fate in fates}
    metrics |= {f"harm/{kind}": float(number) for kind, number in result.harm.items()}
    tags = {
        "mirnet.source": result.source,
        "mirnet.target": result.target,
        "mirnet.manifest": result.manifest_uri,
        "mirnet.model": f"{model.ref.name}/{model.ref.version}",
        "mirnet.model_run": model.ref.run_id,
        "mirnet.drifted": ", ".join(result.drifted) or "no",
        "mirnet.harmful": "yes" if result.harmful else "no",
    }
    try:
        with track(
            run.settings, purpose="enhance", name=result.run_id, key=result.run_id, tags=tags
        ) as tracked:
            tracked.log_metrics(metrics)
    except ServiceError as error:
        logger.warning("drift and harm are in %s, but not in MLflow: %s", result.summary_uri, error)


@contextmanager
def plan_enhancement(
    source: str, target: str, run: RunConfig, *, model: str | None = None, limit: int | None = None
) -> Iterator[BatchPlan]:
    """The plan of :func:`enhance`; nothing is written."""
    from mirnet.batch.run import preview

    refuse_credentials(source, target, model)
    with preview(
        source,
        target,
        model=_open(model, run).ref,
        params=run.params.enhance,
        settings=run.settings,
        limit=limit,
    ) as plan:
        yield plan


def _reference(model: OpenedModel) -> Profile | None:
    """The profile of the model's training inputs, if it has one."""
    path = model.folder / PROFILE
    if not path.is_file():
        return None
    from mirnet.batch.drift import read_profile

    return read_profile(path)


def _open(model: str | None, run: RunConfig) -> OpenedModel:
    return open_model(model or champion_address(run), run)
