"""The batch on a cluster: Ray Data with one actor per GPU, or per CPU without GPUs.

The driver holds the plan, the lease and the records; actors fetch, enhance and commit. An actor
announces each of its batches. One that dies is replaced, and the images that it had in flight are
repeated as suspects (:mod:`mirnet.batch.suspects`); finished outputs are recognised.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import logging
import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import ray
import ray.data

from mirnet.batch.child_work import WorkInChild
from mirnet.batch.digests import Digests
from mirnet.batch.engine import LazyEnhance, open_engine
from mirnet.batch.image_job import ImageJob
from mirnet.batch.image_work import ImageWork
from mirnet.batch.inflight import Inflight, clear_all, in_good_order
from mirnet.batch.isolation import ended_without_progress, unpickled
from mirnet.batch.ledger import InputVersion, Ledger, RunFolder
from mirnet.batch.manifest import Row, as_dict
from mirnet.batch.pipeline import process
from mirnet.batch.plan import WorkItem
from mirnet.batch.rejected import RejectedOutputs
from mirnet.batch.run_config import BatchRunConfig, agree_on_max_pixels
from mirnet.batch.suspects import Suspects
from mirnet.config import Settings
from mirnet.errors import DeviceBroken, ServiceError, StorageError, WorkersLost
from mirnet.logs import protect_output
from mirnet.params import EnhanceParams
from mirnet.ray_session import ray_session
from mirnet.results import ModelRef
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectInfo

logger = logging.getLogger(__name__)

_SLICE = 20_000
_BATCH = 16
_STOPPED = "stopped"
# of an actor, and of its work. Each batch with an image that kills takes one, since its repetition
# works in a child; an actor that cannot start must not block the run for ever
_RESTARTS = 100


@dataclass(frozen=True)
class RayJob:
    """Picklable description of an :class:`ImageJob` for actors; without clients and secrets."""

    source_uri: str
    target_uri: str
    model: ModelRef
    params: EnhanceParams
    run_id: str
    settings: Settings
    run_config: BatchRunConfig

    def open(self, enhance: Any) -> OpenedJob:
        """The job with clients of this process. The driver watches the lease."""
        target = open_store(self.target_uri, self.settings)
        engine = open_engine(enhance, self.params)
        run = Ledger.of_target(target).run(self.run_id)
        run_config = agree_on_max_pixels(run, self.run_config, engine.max_pixels)
        engine.fix_shapes(run_config)
        images = ImageJob(
            source=open_store(
                self.source_uri, self.settings, follow_links=self.params.follow_links
            ),
            target=target,
            quarantine=target.child(self.params.quarantine_prefix.strip("/")),
            model=self.model,
            params=self.params,
            digests=Digests.of(self.params),
            run_id=self.run_id,
            work=ImageWork(self.params, engine),
            guard=lambda: None,
            rejected=RejectedOutputs(run, num_images=self.params.contact_images),
        )
        work = WorkInChild(enhance, self.params, run_config)
        return OpenedJob(images, run, Suspects(images, work, self.settings), self.settings)


@dataclass(frozen=True)
class OpenedJob:
    images: ImageJob
    run: RunFolder
    suspects: Suspects
    settings: Settings

    def rows(self, items: list[WorkItem]) -> Generator[Row]:
        """Yield one row per item. Suspects are announced only while they are worked on, all other
        items now; suspects are also those that an earlier attempt at them died with.
        """
        inputs = [(item.info.key, item.info.version) for item in items]
        batch = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()[:16]
        beside = [each for each, item in zip(inputs, items, strict=True) if not item.suspect]
        attempt, died = self.run.begin_attempt(batch, beside)
        if died:
            # the first attempt at others is no death in a child: they are tried in one now
            items = [
                _again(item, died if item.suspect else died[1:], each)
                for item, each in zip(items, inputs, strict=True)
            ]
        inflight = Inflight(self.run, block=len(items), attempt=attempt)
        with closing(self.suspects):
            yield from inflight.rows(items, self._process, self.suspects.rows)

    def _process(self, items: Iterable[WorkItem]) -> Generator[Row]:
        with ended_without_progress(self.settings.image_limit_s):
            yield from process(items, self.images, num_threads=self.settings.io_threads)


def _again(item: WorkItem, died: list[list[InputVersion]], each: InputVersion) -> WorkItem:
    alone = [each] in died
    return replace(item, suspect=True, deaths=item.deaths + alone, died=alone)


class EnhanceActor:
    """One model on one device."""

    def __init__(self, job: RayJob, enhance: Any) -> None:
        protect_output()
        self._job = job.open(enhance)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Work items as JSON -> rows as JSON, and at the end the error that stopped it, if any."""
        items = [_load_item(text) for text in batch["item"]]
        done = []
        try:
            for row in self._job.rows(items):
                done.append(json.dumps(as_dict(row)))
        except DeviceBroken:
            logger.exception("this worker ends, and its images are repeated by another one")
            os._exit(1)
        except ServiceError as error:
            kind = "storage" if isinstance(error, StorageError) else "service"
            done.append(
                json.dumps({_STOPPED: str(error), "transient": error.transient, "kind": kind})
            )
        return {"row": done}


def process_on_ray(
    items: Iterable[WorkItem], job: RayJob, enhance: Any, *, guard: Callable[[], None]
) -> Iterator[Row]:
    """Yield one row per item, in the order in which they finish.

    Raises:
        WorkersLost: workers died too often.
        ServiceError: no Ray at the address, or as on one machine.
        StorageError: as on one machine; also when the lease is lost.
    """
    run = Ledger.of_target(open_store(job.target_uri, job.settings)).run(job.run_id)
    with in_good_order(lambda: clear_all(run)), ray_session(job.settings):
        ray.data.DataContext.get_current().enable_progress_bars = False
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        num_actors = num_gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)
        # pickled by value once: a worker hands it on to its child
        enhance = LazyEnhance(partial(unpickled, ray.cloudpickle.dumps(enhance)))
        for part, batch_size in _slices(items):
            rows = (
                ray.data.from_items(
                    [{"item": _dump_item(item)} for item in part],
                    override_num_blocks=-(-len(part) // batch_size),
                )
                .map_batches(
                    EnhanceActor,
                    fn_constructor_args=(job, enhance),
                    batch_size=batch_size,
                    compute=ray.data.ActorPoolStrategy(min_size=1, max_size=num_actors),
                    num_cpus=None if num_gpus else 1,
                    num_gpus=1 if num_gpus else None,
                    max_restarts=_RESTARTS,
                    max_task_retries=_RESTARTS,
                )
                .iter_rows()
            )
            for values in _explained(rows):
                guard()
                yield _load_row(values["row"])


def _slices(items: Iterable[WorkItem]) -> Iterator[tuple[list[WorkItem], int]]:
    """Parts of the plan, with the size of their batches: a row of a suspect may take long."""
    for suspect, group in itertools.groupby(items, key=lambda item: item.suspect):
        while part := list(itertools.islice(group, _SLICE)):
            yield part, 1 if suspect else _BATCH


def _load_row(text: str) -> Row:
    values = json.loads(text)
    if _STOPPED in values:
        kind = StorageError if values["kind"] == "storage" else ServiceError
        raise kind(values[_STOPPED], transient=values["transient"])
    return Row(**values)


def _explained(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        raise WorkersLost(f"Ray Data: {str(error).strip().splitlines()[-1]}") from error


def _dump_item(item: WorkItem) -> str:
    return json.dumps(asdict(item))


def _load_item(text: str) -> WorkItem:
    values = json.loads(text)
    before = tuple((key, version) for key, version in values["before"])
    return WorkItem(**values | {"info": ObjectInfo(**values["info"]), "before": before})
