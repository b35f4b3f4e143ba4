"""Collects the rows of a run and closes it: manifest, contact sheet, drift, summary."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, get_args

from mirnet.batch.contact_sheet import ContactSheet
from mirnet.batch.digests import Digests
from mirnet.batch.drift import ColumnDrift, DriftMonitor, Profile
from mirnet.batch.guard import harm_kind
from mirnet.batch.manifest import OUTAGE, Row, Status
from mirnet.batch.one_image import error_of, fate_of
from mirnet.batch.plan import PlanCounts
from mirnet.batch.run_record import RunRecord
from mirnet.cost import CostMeter
from mirnet.errors import StorageError, TooManyBad
from mirnet.params import EnhanceParams
from mirnet.results import EnhanceResult, ImageFate, ModelRef
from mirnet.storage.store import Store

logger = logging.getLogger(__name__)

BatchProgress = Callable[[int, int], None]
_MAX_STORAGE_FAILURES = 20
_BAD = ("quarantined", "failed")


@dataclass(frozen=True)
class RunContext:
    """Facts of a run apart from its rows.

    ``begun``: ``time.perf_counter()``. ``remote``: other processes did the rows. ``output``: of
    the one image that the person named, as they would write it.
    """

    run_id: str
    source: str
    target: str
    model: ModelRef
    plan: PlanCounts
    begun: float
    meter: CostMeter
    remote: bool = False
    output: str | None = None


class RunSummary:
    """Counts, records and judges rows. Memory: the rows since the last part.

    ``was_bad``: whether this key and version was quarantined or failed in an earlier run.
    """

    def __init__(
        self,
        record: RunRecord,
        params: EnhanceParams,
        *,
        reference: Profile | None,
        flush_s: float,
        was_bad: Callable[[str, str], bool],
    ) -> None:
        self._was_bad = was_bad
        self._record = record
        self._params = params
        self._flush_s = flush_s
        self._row_s = 0.0
        self._last: Row | None = None
        self.counts: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._bad_reasons: Counter[str] = Counter()
        self._num_fresh = self._num_fresh_bad = self._num_bad_again = 0
        self._harm: Counter[str] = Counter()
        self._sheet = ContactSheet(num_images=params.contact_images)
        self._drift = DriftMonitor(
            reference or {},
            max_distance=params.drift_distance,
            min_images=params.drift_min_images,
        )

    def take(self, rows: Iterable[Row], *, num_todo: int, progress: BatchProgress | None) -> None:
        """Take all rows, flushing parts at intervals.

        Raises:
            StorageError: the store has failed for many images in a row.
        """
        if progress is not None:
            progress(0, num_todo)
        failures_in_a_row = 0
        flushed = time.monotonic()
        try:
            for row in rows:
                self._add(row)
                if progress is not None:
                    progress(self.counts.total(), num_todo)
                lost = row.status == "failed" and (row.reason or "").startswith(f"{OUTAGE}:")
                failures_in_a_row = failures_in_a_row + 1 if lost else 0
                if failures_in_a_row >= _MAX_STORAGE_FAILURES:
                    raise StorageError(f"{failures_in_a_row} images in a row: {row.reason}")
                if time.monotonic() - flushed > self._flush_s:
                    self._record.flush()
                    flushed = time.monotonic()
        except BaseException:
            self._flush_last()
            raise

    def _flush_last(self) -> None:
        """Write the pending rows after an error; a failure of the store is only logged."""
        try:
            self._record.flush()
        except StorageError as error:
            logger.warning("rows of the last minute are not recorded: %s", error)

    def _add(self, row: Row) -> None:
        self._last = row
        self._record.add(row)
        self._sheet.add(row)
        self._drift.add(row)
        self.counts[row.status] += 1
        bad = row.status in _BAD
        known = self._was_bad(row.input_key, row.input_version)
        self._num_bad_again += bad and known
        self._num_fresh += not known
        self._num_fresh_bad += bad and not known
        if row.reason:
            self._count_reason(row, row.reason, fresh=not known)
        self._row_s += row.seconds

    def _count_reason(self, row: Row, reason: str, *, fresh: bool) -> None:
        kind = harm_kind(reason)
        if kind is not None:
            self._harm[kind] += 1
        # what stands before a colon is one of few, the rest names one image
        short = reason if kind is not None else reason.partition(":")[0]
        self._reasons[short] += 1
        if row.status in _BAD and fresh:
            self._bad_reasons[short] += 1

    def _harmful(self) -> bool:
        """Whether too many outputs failed the safety checks."""
        spoilt = self._harm.total()
        worked_on = self.counts["enhanced"] + spoilt
        enough = worked_on >= self._params.harm_min_images
        return enough and exceeds(self._params.max_harm_share, spoilt, worked_on)

    def close(self, context: RunContext, source: Store, target: Store) -> EnhanceResult:
        """Write manifest and contact sheet, then the summary.

        Raises:
            TooManyBad: after all has been written.
        """
        drift = self._drift.result()
        page = self._write_page(context, source, target)
        problem = self._problem(context)
        cost = context.meter.cost(elsewhere_s=self._row_s if context.remote else 0.0)
        payload = self._summary(context, drift, problem) | {"cost": cost.model_dump()}
        manifest, summary = self._record.finish(payload)
        result = EnhanceResult(
            run_id=context.run_id,
            source=context.source,
            target=context.target,
            model=context.model.name,
            model_version=context.model.version,
            model_note=context.model.note,
            weights_digest=context.model.weights_digest,
            planned=context.plan.planned,
            enhanced=self.counts["enhanced"],
            passed_through=self.counts["passed_through"],
            skipped=context.plan.skipped,
            kept=context.plan.kept,
            outputs_deleted=context.plan.outputs_deleted,
            outputs_changed=context.plan.outputs_changed,
            passed_over=dict(context.plan.passed_over),
            quarantined=self.counts["quarantined"],
            failed=self.counts["failed"],
            known_bad=self._known_bad(context.plan),
            manifest_uri=manifest,
            summary_uri=summary,
            contact_uri=page,
            drift={each.column: each.distance for each in drift},
            drifted=tuple(each.column for each in drift if each.drifted),
            drift_reasons={each.column: each.reason for each in drift},
            reasons=dict(self._reasons),
            harm=dict(self._harm),
            harmful=self._harmful(),
            worst=tuple(
                fate_of(row, source=row.input_key, output=row.output_key)
                for row in self._sheet.worst()
            ),
            picture=self._picture(context),
            problem=problem,
            seconds=time.perf_counter() - context.begun,
            cost=cost,
        )
        if problem and result.picture is not None:
            raise error_of(result.picture, result)
        if problem:
            raise TooManyBad(f"{context.source}: {problem}; see {manifest}", result)
        return result

    def _picture(self, context: RunContext) -> ImageFate | None:
        if context.output is None:
            return None
        return fate_of(self._last, source=context.source, output=context.output)

    def _write_page(self, context: RunContext, source: Store, target: Store) -> str | None:
        if not self._params.contact_images or not self.counts:
            return None
        model = context.model
        by = f"{model.label} ({model.note})" if model.note else model.label
        title = f"Before and after: {context.source} by {by}"
        try:
            html = self._sheet.render(source, target, self._record.folder, title=title)
            return self._record.folder.write_page(html)
        except StorageError as error:
            logger.warning("no contact sheet: %s", error)
            return None

    def _known_bad(self, plan: PlanCounts) -> int:
        """Images that were bad in an earlier run already, in the same version."""
        return self._num_bad_again + plan.quarantined_before

    def _problem(self, context: RunContext) -> str | None:
        """Why the run counts as failed: by what is new in it, then by all images of the source.

        An image that was bad before in the same version is no news: it counts among all images
        that the source ever held only, so that it does not fail every run once the good ones are
        done or gone.
        """
        share, known = self._params.max_bad_share, self._known_bad(context.plan)
        least = self._params.bad_min_images
        bad, total = self._num_fresh_bad + known, context.plan.ever
        if context.output is not None:  # a person named this image, and is told about it again
            if not exceeds(share, self._num_fresh_bad + self._num_bad_again, 1):
                return None
            found, also = "1 of 1 images", ""
        elif exceeds(share, self._num_fresh_bad, max(self._num_fresh, least)):
            found = f"{self._num_fresh_bad} of {self._num_fresh} images"
            also = f"; {known} more were bad before" if known else ""
        elif exceeds(share, bad, max(total, least)):
            found = f"{bad} of {total} images"
            found += f", {known} by earlier runs," if known else ""
            also = ""
        else:
            return None
        why = ", ".join(f"{reason} {count}" for reason, count in self._bad_reasons.most_common(5))
        why = f" ({why})" if why else ""
        return f"{found} are bad{why}, more than max_bad_share {share:g}{also}"

    def _summary(
        self, context: RunContext, drift: list[ColumnDrift], problem: str | None
    ) -> dict[str, Any]:
        return {
            "run_id": context.run_id,
            "status": "failed" if problem else "completed",
            "problem": problem,
            "source": context.source,
            "target": context.target,
            "model": asdict(context.model),
            "params": self._params.model_dump(mode="json"),
            "settings_digest": Digests.of(self._params).output,
            "counts": _counts(context.plan)
            | {each: self.counts[each] for each in get_args(Status)}
            | {"known_bad": self._known_bad(context.plan)},
            "passed_over": dict(context.plan.passed_over),
            "reasons": dict(self._reasons),
            "harm": dict(self._harm),
            "harmful": self._harmful(),
            "drift": [asdict(each) for each in drift],
            "seconds": round(time.perf_counter() - context.begun, 3),
        }


def _counts(plan: PlanCounts) -> dict[str, int]:
    return {
        "planned": plan.planned,
        "skipped": plan.skipped,
        "ignored": plan.passed_over.total(),
        "quarantined_before": plan.quarantined_before,
        "outputs_deleted": plan.outputs_deleted,
        "outputs_changed": plan.outputs_changed,
    }


def exceeds(share: float, count: int, total: int) -> bool:
    """Compares the quotient: the product 0.29 * 100 is less than 29."""
    return total > 0 and count / total > share
