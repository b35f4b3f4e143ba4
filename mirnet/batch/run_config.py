"""Choices that affect the bytes of outputs besides model and params, and must not change when a
run is killed and another one continues.

Compiled and eager code, a batch and a single image, a whole image and tiles round differently. So
a run chooses once, from the first images of its plan, which sizes are compiled (and, if small,
batched), and stores the choice before its first output. A run whose predecessor did not complete
uses the predecessor's choice.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import Annotated

from pydantic import Field, TypeAdapter

from mirnet.batch.digests import Digests
from mirnet.batch.inflight import announced
from mirnet.batch.ledger import UNREADABLE, PastRuns, RunFolder
from mirnet.batch.plan import BatchPlan, WorkItem
from mirnet.batch.records import parse_json
from mirnet.images import read_size
from mirnet.results import ModelRef
from mirnet.signals import advancing
from mirnet.storage.store import KeyRefused, ObjectMissing, Store, TransientStorageError

_SAMPLE = 32
# compiling takes seconds to a minute per size: worthwhile for at least this many images of it
LEAST_EXPECTED = 32
_MAX_SIZES = 4
_MAX_SAMPLED_BYTES = 32 * 2**20
_Side = Annotated[int, Field(ge=1, le=2**20)]
_Pixels = Annotated[int, Field(ge=1, lt=2**63)]


@dataclass(frozen=True)
class BatchRunConfig:
    """``sizes``: (height, width) that are compiled. ``max_pixels``: larger images are tiled.

    ``model`` and ``settings_digest`` identify the work they apply to. ``source``: of the run, so
    that the origin of an output is known after a kill too; none in records of earlier versions.
    """

    model: str
    settings_digest: str
    sizes: tuple[tuple[_Side, _Side], ...] = ()
    max_pixels: _Pixels | None = None
    source: str | None = None

    def dump(self) -> bytes:
        return json.dumps(asdict(self)).encode()


_RUN_CONFIG = TypeAdapter(BatchRunConfig)


def choose_run_config(
    past: PastRuns,
    run: RunFolder,
    *,
    source: Store,
    named: str,
    plan: BatchPlan,
    model: ModelRef,
    digests: Digests,
    max_pixels: int | None,
) -> BatchRunConfig:
    """The config of a run, written into its folder.

    Args:
        past: earlier runs; the choice of the last one is used if it did not complete.
        named: the source as the person named it.
        plan: its first images are examined.
        max_pixels: of the enhancer in this process; none if it is loaded elsewhere.

    Raises:
        StorageError: the target refuses, or source and target stop the run.
    """
    chosen = _of_unfinished(past, model=model, digests=digests)
    if chosen is None:
        sizes = _frequent(source, plan, run)
        chosen = BatchRunConfig(model.label, digests.output, sizes, max_pixels)
    chosen = replace(chosen, source=named)
    run.write_run_config(chosen.dump())
    return chosen


def _of_unfinished(past: PastRuns, *, model: ModelRef, digests: Digests) -> BatchRunConfig | None:
    """The choice of the last run, if it did not complete and had the same work."""
    unfinished = past.unfinished_config()
    if unfinished is None:
        return None
    address = unfinished.address
    found = parse_json(_RUN_CONFIG, unfinished.data, address=address, advice=UNREADABLE)
    same = (found.model, found.settings_digest) == (model.label, digests.output)
    return replace(found, max_pixels=found.max_pixels or unfinished.max_pixels) if same else None


def agree_on_max_pixels(run: RunFolder, config: BatchRunConfig, own: int | None) -> BatchRunConfig:
    """The same ``max_pixels`` for all workers of a run, independent of their free memory: that of
    the first worker, which writes it to the folder of the run.

    Args:
        own: of the worker's enhancer; none: no limit.
    """
    if config.max_pixels is not None or own is None:
        return config
    return replace(config, max_pixels=run.agree_on_max_pixels(own))


def _frequent(source: Store, plan: BatchPlan, run: RunFolder) -> tuple[tuple[int, int], ...]:
    """Sizes of which many images are expected, most frequent first; no suspect is looked at."""
    if plan.num_todo < LEAST_EXPECTED:
        return ()

    def size_of(item: WorkItem) -> tuple[int, int] | None:
        if item.info.problem or not 0 < item.info.size <= _MAX_SAMPLED_BYTES:
            return None
        try:
            data = source.get(item.info.key).data
        except (KeyRefused, ObjectMissing, TransientStorageError):
            return None  # reported in its own row
        try:
            return read_size(data, name=item.info.key)
        except Exception:  # noqa: BLE001 - likewise
            return None

    sample = [item for item in itertools.islice(plan, _SAMPLE) if not item.suspect]
    with (
        announced(run, sample),
        ThreadPoolExecutor(4, thread_name_prefix="mirnet-sizes") as pool,
    ):
        sizes = list(advancing(pool.map(size_of, sample)))
    counts = Counter(size for size in sizes if size is not None)
    least = LEAST_EXPECTED * len(sizes) / plan.num_todo
    frequent = [size for size, count in counts.items() if count >= least]
    frequent.sort(key=lambda size: (-counts[size], size))
    return tuple(frequent[:_MAX_SIZES])
