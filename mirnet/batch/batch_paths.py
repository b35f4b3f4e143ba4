"""Source, target and records of a batch."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mirnet.batch.digests import Digests
from mirnet.batch.inflight import suspects
from mirnet.batch.ledger import Ledger, PastRuns
from mirnet.batch.passed_over import may_come, nothing_to_enhance
from mirnet.batch.plan import BatchPlan, Planner
from mirnet.batch.provenance import single_records, source_digest
from mirnet.batch.verification import has_digest
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.images.formats import SUFFIXES, format_of_suffix
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.places import Place, is_s3, local_path, open_source, open_store
from mirnet.storage.store import ObjectInfo, Store


@dataclass(frozen=True)
class BatchPaths:
    """The addresses and options of one batch."""

    source: Place
    target: Store
    ledger: Ledger
    planner: Planner
    params: EnhanceParams

    @property
    def single(self) -> str | None:
        """The name of the output if one image goes to one file."""
        return self.planner.single_output

    def output_of_named(self, target: str) -> str | None:
        """The output of the single image that was named, in the form the user would write."""
        if self.source.only_key is None:
            return None
        if self.single:
            return target
        return f"{target.rstrip('/')}/{self.planner.output_key(self.source.only_key)}"

    @property
    def quarantine(self) -> Store:
        """Prefix of the copies of bad inputs."""
        prefix = self.params.quarantine_prefix.strip("/")
        return (self.ledger.store if self.single else self.target).child(prefix)

    @property
    def format(self) -> str | None:
        """The format of a single output, by its name; otherwise that of each input."""
        entry = format_of_suffix(Path(self.single).suffix) if self.single else None
        return entry.name if entry else None

    def fill(self, plan: BatchPlan, *, limit: int | None) -> PastRuns:
        """Into the plan: what is done, what lies there, what is to do; the runs before this one.

        Raises:
            UsageError: as of :meth:`check_inputs`, which has run before.
        """
        past = self.ledger.past_runs()
        if self.params.check_outputs:
            plan.check_outputs(partial(has_digest, self.target))
        plan.add_done(past.done_records(outputs=self.params.check_outputs), self.planner)
        plan.add_outputs(self._outputs())
        plan.suspect(suspects(past))
        plan.add_inputs(self._inputs(), self.planner, limit=limit)
        if not plan.counts.planned:
            self._refuse_nothing(plan.counts.passed_over, is_there=True)
        return past

    def check_inputs(self) -> None:
        """Check before anything is written that there is anything to enhance.

        An existing inbox is not an error if the next run may find images in it: if images are too
        young, or if it is empty. An S3 prefix without objects is an error, since it may be
        misspelt, unless the whole bucket is empty.

        Raises:
            UsageError: there is nothing to enhance, for another reason.
        """
        passed_over: Counter[str] = Counter()
        is_there = False
        for info in self._inputs():
            is_there = True
            if self.planner.is_nothing(info):
                continue
            reason = self.planner.why_passed_over(info)
            if reason is None:
                return
            passed_over[reason] += 1
        self._refuse_nothing(passed_over, is_there=is_there or self.source.store.is_there())

    def _refuse_nothing(self, passed_over: Counter[str], *, is_there: bool) -> None:
        if is_there and not self.planner.named and may_come(passed_over):
            return
        store, key = self.source.store, self.source.only_key
        place = store.uri if key is None else store.address(key)
        raise nothing_to_enhance(place, passed_over, self.params, named=self.planner.named)

    def _inputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.source.store.list()
        return _one(self.source.store, self.source.only_key)

    def _outputs(self) -> Iterable[ObjectInfo]:
        if self.source.only_key is None:
            return self.target.list()
        return _one(self.target, self.planner.output_key(self.source.only_key))


def open_batch(
    source: str, target: str, *, model: ModelRef, params: EnhanceParams, settings: Settings
) -> BatchPaths:
    """Open source and target and check that they answer; nothing is written.

    Raises:
        UsageError: source and target are the same place, the source lies inside the target, the
            target cannot be one, or there is nothing to enhance.
        StorageError: a place does not exist, or cannot be reached or listed.
    """
    place = open_source(source, settings, follow_links=params.follow_links, apart=target)
    single = _single_output(place, source, target)
    if single:
        # no folder of records beside a single output file
        own_records = single_records(target, settings)
        ledger = Ledger(open_store(own_records, settings))
        store = open_store(_folder_of(target), settings, bookkeeping=own_records)
    else:
        store = open_store(target, settings)
        ledger = Ledger.of_target(store)
    if is_s3(target):
        store.check()
    planner = Planner(
        model=model,
        params=params,
        digests=Digests.of(params),
        source_digest=source_digest(place.store),
        own_prefix=_own_prefix(place, store, single, named=f"{source} -> {target}"),
        named=place.only_key is not None,
        single_output=single,
    )
    batch = BatchPaths(place, store, ledger, planner, params)
    batch.check_inputs()
    return batch


def _single_output(place: Place, source: str, target: str) -> str | None:
    """The name of the output if one image goes to one file; none for a folder."""
    path = None if is_s3(target) else local_path(target)
    if path is not None:
        _check_way(path, target)
    if target.endswith("/") or (path is not None and path.is_dir()):
        single = None
    else:
        single = _named_output(place, source, target)
    if path is not None and single is None and path.exists() and not path.is_dir():
        raise UsageError(f"{target}: is a file, and the target of {source} is to be a folder")
    return single


def _named_output(place: Place, source: str, target: str) -> str | None:
    name = target.rpartition("/")[2]
    suffix = Path(name).suffix
    if place.only_key is None and format_of_suffix(suffix):
        raise UsageError(
            f"{target}: looks like one image, but {source} is a folder; end the name with /"
        )
    if place.only_key is None or not suffix:
        return None
    if not format_of_suffix(suffix):
        known = ", ".join(SUFFIXES)
        raise UsageError(f"{target}: images are written as {known}; for a folder end it with /")
    return name


def _check_way(path: Path, target: str) -> None:
    """Missing folders are created, but not in place of a file."""
    for parent in path.parents:
        if parent.is_dir():
            return
        if parent.exists():
            raise UsageError(f"{target}: {parent} is a file")


def _folder_of(target: str) -> str:
    if is_s3(target):
        return target.rpartition("/")[0]
    return str(Path(target).expanduser().absolute().parent)


def _one(store: Store, key: str) -> list[ObjectInfo]:
    head = store.head(key)
    if head is None:
        return []
    return [ObjectInfo(key, head.size, head.version, time.time() - head.age_s)]


def _own_prefix(source: Place, target: Store, single: str | None, *, named: str) -> str | None:
    """The prefix of the target within the source; none if it is elsewhere.

    Args:
        single: the name of the output if one image goes to one file.
        named: source and target as written by the user.

    Raises:
        UsageError: they are the same place, or the source lies inside the target.
    """
    if single is not None:
        if source.only_key is not None and _same_file(source, target, single):
            raise UsageError(f"{named}: the target must be another place than the source")
        return None
    inside = _key_below(target, source.store)
    remedy = "name the file that is to be written" if source.only_key else "choose another target"
    if inside == "":
        raise UsageError(f"{named}: the target must be another place than the source; {remedy}")
    if _key_below(source.store, target) is not None:
        raise UsageError(f"{named}: the source lies inside the target, among the outputs; {remedy}")
    return None if inside is None else f"{inside}/"


def _key_below(inner: Store, outer: Store) -> str | None:
    """The key of one place within another, empty if they are the same; none if it is not in it.

    By name in a bucket: ``in2`` is not inside ``in``. In folders also by identity in the file
    system, which may be case-insensitive or mounted twice.
    """
    if is_s3(inner.uri) != is_s3(outer.uri):
        return None
    if is_s3(inner.uri):
        if inner.uri == outer.uri:
            return ""
        begin = f"{outer.uri}/"
        return inner.uri.removeprefix(begin) if inner.uri.startswith(begin) else None
    path, folder = Path(inner.uri), Path(outer.uri)
    for parent in (path, *path.parents):
        if _same(parent, folder):
            key = path.relative_to(parent).as_posix()
            return "" if key == "." else key
    return None


def _same_file(source: Place, target: Store, single: str) -> bool:
    ours, theirs = source.store.address(source.only_key or ""), target.address(single)
    return ours == theirs or (not is_s3(ours) and _same(Path(ours), Path(theirs)))


def _same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))
