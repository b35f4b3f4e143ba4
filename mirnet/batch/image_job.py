"""One image: fetch, enhance, commit. Can be repeated at any point."""

from __future__ import annotations

import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mirnet.batch.digests import Digests
from mirnet.batch.image_work import Decoded, Encoded, ImageWork, Problem, first_words
from mirnet.batch.ledger import InputVersion
from mirnet.batch.manifest import OUTAGE, Row, Status
from mirnet.batch.plan import WorkItem
from mirnet.batch.provenance import Origin, from_metadata, source_digest, to_metadata
from mirnet.batch.rejected import RejectedOutputs
from mirnet.batch.seen import Look, SeenImages
from mirnet.errors import ServiceError
from mirnet.images import Image, Made, Pixels, Seen, read_size
from mirnet.params import EnhanceParams
from mirnet.results import ModelRef
from mirnet.storage.store import (
    Head,
    KeyRefused,
    ObjectChanged,
    ObjectMissing,
    ObjectRefused,
    Store,
    TransientStorageError,
)

# errors of a single image, and the first word of their reason
_ABOUT_ONE = {
    KeyRefused: "name",
    ObjectMissing: "missing",
    ObjectChanged: "changed",
    ObjectRefused: "refused",
    TransientStorageError: OUTAGE,
}
_ONES = tuple(_ABOUT_ONE)


@dataclass(frozen=True, slots=True)
class Downloaded:
    """The bytes of an input. ``num_pixels``: by its header; 0 if unknown, or too many.

    ``seconds``: spent on the image so far, also in later states. ``content_type``: of the object;
    empty if the store has none.
    """

    item: WorkItem
    data: bytes
    version: str
    replaces: str | None
    num_pixels: int
    seconds: float
    content_type: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """Decoded and measured, ready for the model."""

    got: Downloaded
    decoded: Decoded


@dataclass(frozen=True, slots=True)
class Enhanced:
    """Ready to be encoded and written. ``image``: the output, or the input if it is passed
    through. ``own``: what is judged, if it is not the image. ``evened``: of its :class:`Made`.
    """

    got: Downloaded
    decoded: Decoded
    image: Image
    own: Pixels | None = None
    evened: float | None = None


@dataclass(frozen=True)
class ImageJob:
    """State shared by all images of a run.

    ``guard`` raises if the run may no longer write. ``rejected``: stores rejected outputs.
    ``seen``: what images need that come after others.
    """

    source: Store
    target: Store
    quarantine: Store
    model: ModelRef
    params: EnhanceParams
    digests: Digests
    run_id: str
    work: ImageWork
    guard: Callable[[], None]
    rejected: RejectedOutputs | None = None
    seen: SeenImages = field(default_factory=SeenImages)

    @functools.cached_property
    def source_digest(self) -> str:
        return source_digest(self.source)

    @functools.cached_property
    def _choices(self) -> dict[str, float | str]:
        chosen = self.params
        return {
            "strength": chosen.strength,
            "exposure": str(chosen.exposure),
            "denoise": chosen.denoise,
        }

    def download(self, item: WorkItem) -> Downloaded | Row:
        """Get the bytes, and the size by the header; a row if the image is finished by that."""
        got = self.fetch(item)
        if isinstance(got, Row):
            return got
        try:
            height, width = read_size(got.data, name=item.info.key)
        except Exception:  # noqa: BLE001 - decoding reports the problem
            height = width = 0
        pixels = height * width if height * width <= self.params.max_pixels else 0
        return replace(got, num_pixels=pixels)

    def fetch(self, item: WorkItem) -> Downloaded | Row:
        """Get the bytes and look at none of them; a row if the image is finished by that."""
        begun = time.perf_counter()
        try:
            return self._fetch(item, begun)
        except _ONES as error:
            return self._row(item, "failed", begun, reason=_reason(error))

    def _fetch(self, item: WorkItem, begun: float) -> Downloaded | Row:
        info = item.info
        if info.problem:
            return self._row(item, "failed", begun, reason=info.problem)
        if info.size > self.params.max_bytes:
            return self._quarantine(item, "too-large", info.version, begun)
        replaces = None
        if item.existing is not None:
            head = self.target.head(item.output_key)
            if head is not None:
                known = self._resolve_existing_output(item, head, info.version, begun)
                if known is not None:
                    return known
                replaces = head.version
        blob = self.source.get(info.key)
        seconds = time.perf_counter() - begun
        return Downloaded(*(item, blob.data, blob.version, replaces, 0, seconds), blob.content_type)

    def read(self, got: Downloaded) -> Fetched | Enhanced | Row:
        """Decode and measure; a row if the image is finished by that."""
        begun = time.perf_counter() - got.seconds
        found = self.work.decode(got.data, name=got.item.info.key)
        if isinstance(found, Problem):
            return self._ended(got, found, begun)
        if found.passed is not None and self.params.evens:
            self._keep(got, self.work.seen(found, found.image.pixels))
        got = replace(got, seconds=time.perf_counter() - begun)
        return Fetched(got, found) if found.passed is None else Enhanced(got, found, found.image)

    def batch_size(self, fetched: Fetched) -> int:
        """Batch size of the model for images of this size."""
        return self.work.engine.batch_size(fetched.decoded.image)

    def apply(self, batch: Sequence[Fetched]) -> list[Enhanced | Row]:
        """Run the model on images of one size; after a failure, one by one."""
        begun = time.perf_counter()
        done = self.work.enhance([fetched.decoded.image for fetched in batch])
        if self.params.evens:
            done = self._even(batch, done)
        each = (time.perf_counter() - begun) / len(batch)
        return [
            self._ended(fetched.got, made, begun)
            if isinstance(made, Problem)
            else Enhanced(
                *(_later(fetched.got, each), fetched.decoded, made.image, made.own, made.evened)
            )
            for fetched, made in zip(batch, done, strict=True)
        ]

    def _even(
        self, batch: Sequence[Fetched], done: Sequence[Made | Problem]
    ) -> list[Made | Problem]:
        """After all of the batch are seen: one of them may come before another."""
        seen = [
            made if isinstance(made, Problem) else self.work.seen(each.decoded, made.image.pixels)
            for each, made in zip(batch, done, strict=True)
        ]
        for fetched, own in zip(batch, seen, strict=True):
            self._keep(fetched.got, own)
        return [
            own if isinstance(own, Problem) else self._evened(fetched, made, own)
            for fetched, made, own in zip(batch, done, seen, strict=True)
        ]

    def _keep(self, got: Downloaded, seen: Seen | Problem) -> None:
        version = got.item.info.key, got.version
        self.seen.keep(version, None if isinstance(seen, Problem) else seen)

    def _evened(self, fetched: Fetched, made: Made | Problem, own: Seen) -> Made | Problem:
        if isinstance(made, Problem):
            return made
        before = self.seen_before(fetched.got.item)
        if isinstance(before, Problem):
            return before
        return self.work.even(fetched.decoded, made.image.pixels, own, before)

    def seen_before(self, item: WorkItem, look: Look | None = None) -> list[Seen] | Problem:
        """What was seen of the images before an image; a problem where that is known later.

        Args:
            look: at one that is not known; none: in this process.

        Raises:
            StorageError: failures that stop a run.
        """
        return self.seen.of(item.before, self.source, look or self._look)

    def _look(self, each: InputVersion, data: bytes) -> Seen | Problem | None:
        return self.work.view(data, name=each[0])

    def commit(self, enhanced: Enhanced) -> Row:
        """Encode and write atomically, never over foreign objects."""
        begun = time.perf_counter()
        output = self.work.encode(enhanced.decoded, enhanced.image, enhanced.own, enhanced.evened)
        return self.finish(_later(enhanced.got, time.perf_counter() - begun), output)

    def finish(self, got: Downloaded, output: Encoded | Problem) -> Row:
        """Write the output of an image, or quarantine it; ``got.seconds``: what it took so far."""
        begun = time.perf_counter() - got.seconds
        if isinstance(output, Problem):
            return self._ended(got, output, begun)
        if output.rejected is not None and self.rejected is not None:
            self.rejected.keep(got.item.info.key, output.rejected)
        try:
            return self._write(got, output, begun)
        except _ONES as error:
            return self._row(got.item, "failed", begun, reason=_reason(error))
        except ServiceError:
            raise
        except Exception as error:  # noqa: BLE001 - any failure must not affect other images
            return self._row(got.item, "failed", begun, reason=f"writing: {first_words(error)}")

    def _write(self, got: Downloaded, output: Encoded, begun: float) -> Row:
        item, passed = got.item, output.passed
        data = got.data if output.data is None else output.data
        row = self._row(
            item,
            "passed_through" if passed else "enhanced",
            begun,
            reason=passed,
            input_version=got.version,
            settings_digest=self.digests.passed if passed else self.digests.output,
            **({} if passed else self._choices),
            output_key=item.output_key,
            output_size=len(data),
            output_digest=hashlib.sha256(data).hexdigest(),
            **output.columns.model_dump(),
        )
        self.guard()
        written = self.target.put(
            item.output_key,
            data,
            content_type=output.content_type,
            metadata=to_metadata(row),
            replaces=got.replaces,
            absent=got.replaces is None,
        )
        if written is not None:
            return replace(row, output_version=written)
        # another writer was first: a killed run, a job whose lease we took over, or a foreign one
        head = self.target.head(item.output_key)
        known = head and self._resolve_existing_output(item, head, got.version, begun)
        return known or self._row(item, "failed", begun, reason="conflict: changed meanwhile")

    def _ended(self, got: Downloaded, problem: Problem, begun: float) -> Row:
        if problem.status == "quarantined":
            return self._quarantine(got.item, problem.reason, got.version, begun, got)
        return self._row(got.item, problem.status, begun, reason=problem.reason)

    def _resolve_existing_output(
        self, item: WorkItem, head: Head, version: str, begun: float
    ) -> Row | None:
        """A row for an existing output: done, or foreign; none: ours and to be replaced."""
        past = from_metadata(head.metadata)
        if past is None or not past.is_of(item.info.key, self.source_digest):
            return self._conflict(item, self.target.address(item.output_key), past, begun)
        if past.row.input_version != version:
            return None
        if item.changed and past.row.run_id != self.run_id:
            return None  # ours by its metadata, and not the bytes that we wrote
        if not self.digests.hold(past.row.status, past.row.settings_digest):
            return None
        made = self.model.made(past.row.model_label, past.row.weights_digest)
        if not made and self.params.on_new_model == "redo":
            return None
        # the metadata of the output, as a row of this run
        took = round(time.perf_counter() - begun, 4)
        return replace(
            past.row,
            input_key=item.info.key,
            input_size=item.info.size,
            output_key=item.output_key,
            output_size=head.size,
            output_version=head.version,
            run_id=self.run_id,
            seconds=took,
        )

    def _conflict(
        self, item: WorkItem, place: str, past: Origin | None, begun: float, found: str = ""
    ) -> Row:
        """An object at the output key is not of this input; ``found``: the problem of the input."""
        what = "is nothing that we made of this input"
        if item.changed:
            what = "was changed since we wrote it"
        if past and past.row.source_digest in (None, self.source_digest):
            what = f"is of another image of this source, {past.row.input_key}"
        elif past:
            what = "is of another source"
        also = f"; the image is bad: {found}" if found else ""
        why = f"conflict: {place} {what}; move it away or choose another target{also}"
        return self._row(item, "failed", begun, reason=why)

    def _quarantine(
        self,
        item: WorkItem,
        reason: str,
        version: str,
        begun: float,
        got: Downloaded | None = None,
    ) -> Row:
        """Keep a copy of the version that is bad: of the bytes that were read, if any were."""
        key = item.info.key
        row = self._row(
            item,
            "quarantined",
            begun,
            reason=reason,
            input_version=version,
            settings_digest=self.digests.quarantine,
        )
        try:
            self.guard()
            there = self.quarantine.head(key)
            past = from_metadata(there.metadata) if there else None
            if there and not (past and past.is_of(key, self.source_digest)):
                return self._conflict(item, self.quarantine.address(key), past, begun, reason)
            metadata = to_metadata(row)
            if got is None:
                self.quarantine.copy_from(self.source, key, key, metadata=metadata, version=version)
            else:
                kind = got.content_type or "application/octet-stream"
                self.quarantine.put(key, got.data, content_type=kind, metadata=metadata)
            self.quarantine.put(f"{key}.reason.txt", f"{reason}\n".encode())
        except _ONES as error:
            return self._row(item, "failed", begun, reason=f"{reason}; quarantine: {error}")
        return row

    def _row(self, item: WorkItem, status: Status, begun: float, **facts: Any) -> Row:
        """A row of this run; ``facts`` add or override columns."""
        info, model = item.info, self.model
        usual: dict[str, Any] = {
            "input_version": info.version,
            "settings_digest": self.digests.output,
            "model_version": model.version,
            "model_run_id": model.run_id,
            "data_digest": model.data_digest,
            "git_commit": model.git_commit,
            "weights_digest": model.weights_digest,
            "model_note": model.note,
            "source_digest": self.source_digest,
        }
        return Row(
            input_key=info.key,
            input_size=info.size,
            status=status,
            run_id=self.run_id,
            model_name=model.name,
            seconds=round(time.perf_counter() - begun, 4),
            **(usual | facts),
        )


def _later(got: Downloaded, seconds: float) -> Downloaded:
    return replace(got, seconds=got.seconds + seconds)


def _reason(error: Exception) -> str:
    word = next(word for kind, word in _ABOUT_ONE.items() if isinstance(error, kind))
    return f"{word}: {error}"
