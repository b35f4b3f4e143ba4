"""The batch on a cluster: Ray Data with one actor per GPU, or per CPU without GPUs.

The driver holds the plan, the lease and the records; actors fetch, enhance and commit. An actor
that dies is replaced and its images are repeated; finished outputs are recognised.
"""

from __future__ import annotations

import itertools
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import ray
import ray.data

from mirnet.batch.digests import Digests
from mirnet.batch.engine import open_engine
from mirnet.batch.image_job import ImageJob
from mirnet.batch.image_work import ImageWork
from mirnet.batch.ledger import Ledger
from mirnet.batch.manifest import Row, as_dict
from mirnet.batch.pipeline import process
from mirnet.batch.plan import WorkItem
from mirnet.batch.rejected import RejectedOutputs
from mirnet.batch.run_config import BatchRunConfig, agree_on_max_pixels
from mirnet.config import Settings, apply_engine_defaults
from mirnet.errors import ServiceError, StorageError
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.signals import hear_again
from mirnet.storage.places import open_store
from mirnet.storage.store import ObjectInfo

logger = logging.getLogger(__name__)

_SLICE = 20_000
_BATCH = 16
_STOPPED = "stopped"
# of an actor, and of its work: an image that kills each actor must not block the run for ever
_RESTARTS = 4
_OBJECT_STORE_BYTES = 200_000_000


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

    def open(self, enhance: Any) -> ImageJob:
        """The job with clients of this process. The driver watches the lease."""
        target = open_store(self.target_uri, self.settings)
        engine = open_engine(enhance, self.params.strength)
        run = Ledger.of_target(target).run(self.run_id)
        engine.fix_shapes(agree_on_max_pixels(run, self.run_config, engine.max_pixels))
        return ImageJob(
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


class EnhanceActor:
    """One model on one device."""

    def __init__(self, job: RayJob, enhance: Any) -> None:
        self._job = job.open(enhance)
        self._num_threads = job.settings.io_threads

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Work items as JSON -> rows as JSON, and at the end the error that stopped it, if any."""
        items = [_load_item(text) for text in batch["item"]]
        done = []
        try:
            for row in process(items, self._job, num_threads=self._num_threads):
                done.append(json.dumps(as_dict(row)))
        except StorageError as error:
            done.append(json.dumps({_STOPPED: str(error), "transient": error.transient}))
        return {"row": done}


def process_on_ray(
    items: Iterable[WorkItem], job: RayJob, enhance: Any, *, guard: Callable[[], None]
) -> Iterator[Row]:
    """Yield one row per item, in the order in which they finish.

    Raises:
        ServiceError: no Ray at the address, or it lost the work too often.
        StorageError: as on one machine; also when the lease is lost.
    """
    with _connected(job.settings):
        num_gpus = int(ray.cluster_resources().get("GPU", 0))
        num_actors = num_gpus or max(1, int(ray.cluster_resources().get("CPU", 1)) - 1)
        todo = iter(items)
        while part := list(itertools.islice(todo, _SLICE)):
            rows = (
                ray.data.from_items(
                    [{"item": _dump_item(item)} for item in part],
                    override_num_blocks=-(-len(part) // _BATCH),
                )
                .map_batches(
                    EnhanceActor,
                    fn_constructor_args=(job, enhance),
                    batch_size=_BATCH,
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


def _load_row(text: str) -> Row:
    values = json.loads(text)
    if _STOPPED in values:
        raise StorageError(values[_STOPPED], transient=values["transient"])
    return Row(**values)


def _explained(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except ray.exceptions.RayError as error:
        raise ServiceError(f"Ray Data: {str(error).strip().splitlines()[-1]}") from error


@contextmanager
def _connected(settings: Settings) -> Iterator[None]:
    """Join the cluster of the settings, or start a Ray here that ends with us."""
    if ray.is_initialized():
        yield
        return
    apply_engine_defaults()
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        if settings.ray_address and settings.ray_address != "in-process":
            ray.init(address=settings.ray_address, logging_level=logging.WARNING)
        else:
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ServiceError(
            f"Ray at {settings.ray_address} (MIRNET_RAY_ADDRESS): {str(error).splitlines()[0]}"
        ) from error
    hear_again()  # Ray has installed its own handler, which raises at any point
    try:
        yield
    finally:
        ray.shutdown()


def _dump_item(item: WorkItem) -> str:
    return json.dumps(asdict(item))


def _load_item(text: str) -> WorkItem:
    values = json.loads(text)
    return WorkItem(**values | {"info": ObjectInfo(**values["info"])})
