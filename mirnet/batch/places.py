"""Where a batch reads, writes and keeps its records."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mirnet.batch.in_hand import suspects
from mirnet.batch.origin import single_records
from mirnet.batch.plan import Plan, Planner
from mirnet.batch.records import RECORDS, Digests, ModelIdentity, past_marks
from mirnet.batch.storage import ObjectInfo, Place, Store, is_s3, open_source, open_store
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.images.formats import format_of_suffix
from mirnet.params import EnhanceParams

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Batch:
    """The places and decisions of one batch."""

    source: Place
    target: Store
    records: Store
    planner: Planner
    params: EnhanceParams

    @property
    def single(self) -> str | None:
        """The name of the output where one image goes to one file."""
        return self.planner.single_output

    @property
    def quarantine(self) -> Store:
        """Where bad inputs are copied to."""
        prefix = self.params.quarantine_prefix.strip("/")
        return (self.records if self.single else self.target).child(prefix)

    @property
    def format(self) -> str | None:
        """Of a single output, by its name; otherwise outputs are as their inputs."""
        entry = format_of_suffix(Path(self.single).suffix) if self.single else None
        return entry.name if entry else None

    def fill(self, plan: Plan, *, limit: int | None) -> None:
        """Into the plan: what is done, what lies there, what is to do."""
        plan.add_done(past_marks(self.records), self.planner.model)
        plan.add_outputs(self._outputs())
        plan.suspect(suspects(self.records))
        plan.add_inputs(self._inputs(), self.planner, limit=limit)
        if plan.counts.planned + plan.counts.ignored == 0:
            logger.warning("nothing lies at %s; is the place right?", self.source.store.uri)

    def _inputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.source.store.list()
        return _one(self.source.store, self.source.only_key)

    def _outputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.target.list()
        return _one(self.target, self.planner.output_key(self.source.only_key))


def open_batch(
    source: str, target: str, *, model: ModelIdentity, params: EnhanceParams, settings: Settings
) -> Batch:
    """Open the places and find out whether they answer; nothing is written.

    Raises:
        UsageError: source and target are the same place.
        StorageError: a place does not exist, or cannot be reached or listed.
    """
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
    return Batch(place, store, records, planner, params)


def _single_output(place: Place, target: str) -> str | None:
    if place.only_key is None or target.endswith("/"):
        return None
    if not is_s3(target) and Path(target).is_dir():
        return None
    name = target.rpartition("/")[2]
    return name if format_of_suffix(Path(name).suffix) else None


def _one(store: Store, key: str) -> list[ObjectInfo]:
    head = store.head(key)
    if head is None:
        return []
    return [ObjectInfo(key, head.size, head.version, time.time() - head.age_s)]
