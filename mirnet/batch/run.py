"""A batch: plan, enhance, commit, with a manifest and a summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirnet.batch.drift import Profile
from mirnet.batch.lease import Lease, LeaseHeld
from mirnet.batch.origin import single_records
from mirnet.batch.pipeline import process
from mirnet.batch.plan import Plan, Planner, WorkItem
from mirnet.batch.process import FORMAT_BY_SUFFIX, EnhanceImage, ImageJob
from mirnet.batch.records import RECORDS, Digests, ModelIdentity, Row, RunRecord, past_rows
from mirnet.batch.storage import (
    ObjectInfo,
    Place,
    Store,
    is_s3,
    open_source,
    open_store,
)
from mirnet.batch.tally import Outline, Progress, Tally
from mirnet.config import EnhanceParams, Settings
from mirnet.errors import UsageError
from mirnet.results import EnhanceResult

__all__ = ["ModelIdentity", "preview", "run_batch"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Batch:
    """The places and decisions of one batch."""

    source: Place
    target: Store
    records: Store
    planner: Planner
    params: EnhanceParams
    settings: Settings

    @property
    def quarantine(self) -> Store:
        prefix = self.params.quarantine_prefix.strip("/")
        return self.target.child(prefix) if self.single is None else self.records.child(prefix)

    @property
    def single(self) -> str | None:
        return self.planner.single_output

    @property
    def format(self) -> str | None:
        """Of a single output, by its name; otherwise outputs are as their inputs."""
        return FORMAT_BY_SUFFIX[Path(self.single).suffix.lower()] if self.single else None

    def plan(self, plan: Plan, *, limit: int | None) -> None:
        """Fill the plan: what is done, what lies there, what is to do."""
        plan.add_done(past_rows(self.records))
        plan.add_outputs(self._outputs())
        plan.add_inputs(self._inputs(), self.planner, limit=limit)

    def _inputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.source.store.list()
        return _one(self.source.store, self.source.only_key)

    def _outputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.target.list()
        return _one(self.target, self.planner.output_key(self.source.only_key))


def run_batch(
    source: str,
    target: str,
    *,
    enhance: Any,
    model: ModelIdentity,
    params: EnhanceParams,
    settings: Settings,
    progress: Progress | None = None,
    limit: int | None = None,
    reference: Profile | None = None,
) -> EnhanceResult:
    """Enhance what is not done yet and account for every image.

    Args:
        source: s3://bucket/prefix, a folder, or one image of either.
        target: s3://bucket/prefix or a folder; for one image also the name of the output.
        enhance: ``Image -> Image``, or an object with ``enhance_image(image, strength)``.
        model: what made the outputs; goes to the manifest and onto every output.
        progress: called with images ended and images to do.
        limit: enhance at most so many.
        reference: profile of the images that the model was trained on, for the drift check.

    Raises:
        UsageError: source and target are the same place.
        StorageError: a place cannot be reached, read or written; names it and what to do.
        DataError: more than ``max_bad_share`` of the images were quarantined. The manifest and
            the summary are written before.
    """
    begun = time.perf_counter()
    batch = _open(source, target, model=model, params=params, settings=settings)
    try:
        with Lease(batch.records, lease_s=settings.lease_s) as lease, Plan() as plan:
            if batch.single is None:
                batch.target.sweep()
            batch.plan(plan, limit=limit)
            job = ImageJob(
                source=batch.source.store,
                target=batch.target,
                quarantine=batch.quarantine,
                model=model,
                params=params,
                digests=batch.planner.digests,
                run_id=lease.run_id,
                enhance=_as_function(enhance, params.strength),
                guard=lease.check,
                format=batch.format,
            )
            record = RunRecord(batch.records, lease.run_id, format=params.manifest_format)
            tally = Tally(record, params, reference=reference, flush_s=settings.flush_s)
            tally.take(_rows(plan, job, settings), num_todo=plan.num_todo, progress=progress)
            lease.check()
            return tally.close(
                Outline(
                    run_id=lease.run_id,
                    source=source,
                    target=target,
                    model=model,
                    plan=plan.counts,
                    begun=begun,
                ),
                batch.source.store,
                batch.target,
            )
    except LeaseHeld as held:
        logger.warning("%s", held)
        return EnhanceResult(
            run_id=held.run_id,
            source=source,
            target=target,
            model=model.name,
            model_version=model.version,
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
    model: ModelIdentity,
    params: EnhanceParams,
    settings: Settings,
    limit: int | None = None,
) -> Iterator[Plan]:
    """The plan that :func:`run_batch` would carry out; nothing is written."""
    batch = _open(source, target, model=model, params=params, settings=settings)
    with Plan() as plan:
        batch.plan(plan, limit=limit)
        yield plan


def _open(
    source: str, target: str, *, model: ModelIdentity, params: EnhanceParams, settings: Settings
) -> _Batch:
    place = open_source(source, settings)
    single = _single_output(place, target)
    if single:
        # no folder of records beside the one picture that a person asked for
        own_records = single_records(target, settings)
        records = open_store(own_records, settings)
        store = open_store(target.rpartition("/")[0] or ".", settings, bookkeeping=own_records)
    else:
        store = open_store(target, settings)
        records = store.child(RECORDS)
    if is_s3(target):
        store.check()
    own = place.store.uri
    if store.uri == own and (place.only_key is None or single in (None, place.only_key)):
        raise UsageError(f"{source} -> {target}: the target must be another place than the source")
    inside = store.uri.startswith(own.rstrip("/") + "/")
    planner = Planner(
        model=model,
        params=params,
        digests=Digests.of(params),
        own_prefix=store.uri[len(own.rstrip("/")) + 1 :] + "/" if inside else None,
        single_output=single,
    )
    return _Batch(place, store, records, planner, params, settings)


def _single_output(place: Place, target: str) -> str | None:
    """The name of the output where one image goes to one file."""
    if place.only_key is None or target.endswith("/"):
        return None
    if not is_s3(target) and Path(target).is_dir():
        return None
    name = target.rpartition("/")[2]
    return name if Path(name).suffix.lower() in FORMAT_BY_SUFFIX else None


def _one(store: Store, key: str) -> list[ObjectInfo]:
    head = store.head(key)
    if head is None:
        return []
    return [ObjectInfo(key, head.size, head.version, time.time() - head.age_s)]


def _as_function(enhance: Any, strength: float) -> EnhanceImage:
    method = getattr(enhance, "enhance_image", None)
    if method is None:
        return enhance  # type: ignore[no-any-return]
    return lambda image: method(image, strength)


def _rows(items: Iterable[WorkItem], job: ImageJob, settings: Settings) -> Iterator[Row]:
    return process(items, job, num_threads=settings.io_threads)
