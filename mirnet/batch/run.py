"""A batch: plan, enhance, commit, with a manifest and a summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

from mirnet.batch.batch_paths import BatchPaths, open_batch
from mirnet.batch.child_work import WorkInChild
from mirnet.batch.drift import Profile
from mirnet.batch.engine import LazyEnhance, open_engine
from mirnet.batch.image_job import ImageJob
from mirnet.batch.image_work import ImageWork
from mirnet.batch.inflight import Inflight
from mirnet.batch.lease import Lease, LeaseHeld
from mirnet.batch.ledger import PastRuns
from mirnet.batch.manifest import Row
from mirnet.batch.pipeline import process
from mirnet.batch.plan import BatchPlan
from mirnet.batch.rejected import RejectedOutputs
from mirnet.batch.run_config import choose_run_config
from mirnet.batch.run_record import RunRecord
from mirnet.batch.summary import BatchProgress, RunContext, RunSummary
from mirnet.batch.suspects import Suspects
from mirnet.config import Settings
from mirnet.cost import CostMeter
from mirnet.logs import bound
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult, ModelRef
from mirnet.signals import advance, termination_as_exception

__all__ = ["LazyEnhance", "preview", "run_batch"]

logger = logging.getLogger(__name__)


def run_batch(
    source: str,
    target: str,
    *,
    enhance: Any,
    model: ModelRef,
    params: EnhanceParams,
    settings: Settings,
    progress: BatchProgress | None = None,
    limit: int | None = None,
    reference: Profile | None = None,
) -> EnhanceResult:
    """Enhance what is not done yet and account for every image.

    Args:
        source: s3://bucket/prefix, a folder, or one image of either.
        target: s3://bucket/prefix or a folder; for one image also the name of the output.
        enhance: an ``Enhancer``, an object with ``enhance_image(image, strength)``, a function
            ``Image -> Image``, or a :class:`LazyEnhance` of one of them. On Ray it has to pickle.
        model: identity of the model, for the manifest and the metadata of every output.
        progress: called with images ended and images to do.
        limit: maximum number of images.
        reference: profile of the images that the model was trained on, for the drift check.

    Raises:
        LeaseHeld: another job has held the target for longer than ``max_held_s``.
        UsageError: source and target are the same place or in each other, or there is nothing
            to enhance.
        StorageError: a place cannot be reached, read or written; names it and what to do.
        TooManyBad: more than ``max_bad_share`` of the images were quarantined or failed, in this
            run or of all images of the source. Manifest and summary are written before.
    """
    begun, meter = time.perf_counter(), CostMeter(settings)
    batch = open_batch(source, target, model=model, params=params, settings=settings)
    try:
        with (
            termination_as_exception(stop_s=settings.stop_s),
            Lease(batch.ledger, lease_s=settings.lease_s, stuck_s=settings.stuck_s) as lease,
            bound(batch_run_id=lease.run_id),
            BatchPlan() as plan,
        ):
            if batch.single is None:
                batch.target.sweep()
            past = batch.fill(plan, limit=limit)
            folder = batch.ledger.run(lease.run_id)
            record = RunRecord(folder, format=params.manifest_format)
            summary = RunSummary(
                record,
                params,
                reference=reference,
                flush_s=settings.flush_s,
                was_bad=plan.was_bad,
            )
            if plan.num_todo:
                # closed immediately: nothing may be in flight when the lease is released
                with closing(
                    _enhanced(batch, source, plan, past, enhance, lease, settings)
                ) as rows:
                    summary.take(rows, num_todo=plan.num_todo, progress=progress)
            lease.check()
            context = RunContext(
                run_id=lease.run_id,
                source=source,
                target=target,
                model=model,
                plan=plan.counts,
                begun=begun,
                meter=meter,
                remote=settings.batch_engine == "ray" and batch.single is None,
                output=batch.output_of_named(target),
            )
            return summary.close(context, batch.source.store, batch.target)
    except LeaseHeld as held:
        if held.held_s > params.max_held_s:
            raise LeaseHeld(
                f"{held}. It has been at work for {held.held_s / 3600:.1f} h, longer than "
                f"enhance.max_held_s ({params.max_held_s:g}): end it unless it makes progress",
                run_id=held.run_id,
                held_s=held.held_s,
            ) from held
        logger.info("%s", held)
        return EnhanceResult(
            run_id=held.run_id,
            source=source,
            target=target,
            model=model.name,
            model_version=model.version,
            model_note=model.note,
            weights_digest=model.weights_digest,
            planned=0,
            enhanced=0,
            held_by=str(held),
            seconds=time.perf_counter() - begun,
        )


@contextmanager
def preview(
    source: str,
    target: str,
    *,
    model: ModelRef,
    params: EnhanceParams,
    settings: Settings,
    limit: int | None = None,
) -> Iterator[BatchPlan]:
    """The plan that :func:`run_batch` would carry out; nothing is written."""
    batch = open_batch(source, target, model=model, params=params, settings=settings)
    with BatchPlan() as plan:
        batch.fill(plan, limit=limit)
        yield plan


def _enhanced(
    batch: BatchPaths,
    named: str,
    plan: BatchPlan,
    past: PastRuns,
    enhance: Any,
    lease: Lease,
    settings: Settings,
) -> Generator[Row]:
    folder = batch.ledger.run(lease.run_id)
    choose = partial(
        choose_run_config,
        past,
        folder,
        source=batch.source.store,
        named=named,
        plan=plan,
        model=batch.planner.model,
        digests=batch.planner.digests,
    )
    if settings.batch_engine == "ray" and batch.single is None:
        from mirnet.batch.ray_engine import RayJob, process_on_ray

        remote = RayJob(
            source_uri=batch.source.store.uri,
            target_uri=batch.target.uri,
            model=batch.planner.model,
            params=batch.params,
            run_id=lease.run_id,
            settings=settings,
            run_config=choose(max_pixels=None),
        )
        for row in process_on_ray(plan, remote, enhance, guard=lease.check):
            advance()
            yield row
        return
    engine = open_engine(enhance, batch.params)
    job = ImageJob(
        source=batch.source.store,
        target=batch.target,
        quarantine=batch.quarantine,
        model=batch.planner.model,
        params=batch.params,
        digests=batch.planner.digests,
        run_id=lease.run_id,
        work=ImageWork(batch.params, engine, batch.format),
        guard=lease.check,
        rejected=RejectedOutputs(folder, num_images=batch.params.contact_images),
    )
    run = partial(process, job=job, num_threads=settings.io_threads)
    run_config = choose(max_pixels=engine.max_pixels)
    if batch.single is not None:
        yield from run(plan)
        return
    engine.fix_shapes(run_config)
    inflight = Inflight(folder, block=max(128, 8 * settings.io_threads))
    work = WorkInChild(enhance, batch.params, run_config)
    with closing(Suspects(job, work, settings)) as suspects:
        yield from inflight.rows(plan, run, suspects.rows)
