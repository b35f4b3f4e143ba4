"""The contact sheet beside the manifest: random images before and after, the darkest results,
outputs rejected by the safety checks, and quarantined inputs.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import html
import logging
from collections.abc import Callable, Iterable
from typing import NamedTuple

from mirnet.batch.guard import harm_kind
from mirnet.batch.ledger import RunFolder
from mirnet.batch.manifest import Row
from mirnet.batch.rejected import small_jpeg
from mirnet.images import decode
from mirnet.redaction import shown
from mirnet.signals import advance
from mirnet.storage.store import Store

logger = logging.getLogger(__name__)

_MAX_PIXELS = 50_000_000
_MAX_LISTED = 200
_MAX_WORST = 20
_STYLE = (
    "body{font:14px system-ui;margin:2em;background:#181818;color:#ddd}"
    "figure{display:inline-block;margin:0 1em 1em 0}figcaption{max-width:490px;color:#aaa}"
    "td,th{padding:.1em 1em .1em 0;text-align:left}"
)


class _Ranked(NamedTuple):
    rank: float
    key: str
    row: Row


class ContactSheet:
    """Sample rows as they arrive, then fetch and show the selected images."""

    def __init__(self, *, num_images: int) -> None:
        self._num = num_images
        self._by_lot: list[_Ranked] = []
        self._darkest: list[_Ranked] = []
        self._bad: list[Row] = []
        self._harmed: list[Row] = []

    def add(self, row: Row) -> None:
        """Consider a row."""
        if row.status in ("quarantined", "failed"):
            if len(self._bad) < _MAX_LISTED:
                self._bad.append(row)
            return
        if harm_kind(row.reason) and len(self._harmed) < _MAX_LISTED:
            self._harmed.append(row)
        lot = int.from_bytes(hashlib.sha256(row.input_key.encode()).digest()[:6])
        self._offer(self._by_lot, -float(lot), row)
        if row.luminance_after is not None:
            self._offer(self._darkest, -row.luminance_after, row)

    def worst(self) -> list[Row]:
        """A few images: not enhanced, rejected by a safety check, then the darkest."""
        harmed = self._harmed[:_MAX_WORST]
        darkest = [row for row in _in_order(self._darkest) if row not in harmed]
        return [*self._bad[:_MAX_WORST], *harmed, *darkest]

    def _offer(self, heap: list[_Ranked], rank: float, row: Row) -> None:
        heapq.heappush(heap, _Ranked(rank, row.input_key, row))
        if len(heap) > self._num:
            heapq.heappop(heap)

    def render(self, source: Store, target: Store, run: RunFolder, *, title: str) -> str:
        """One self-contained HTML page; images that no longer exist are left out.

        Args:
            run: folder of the thumbnails of rejected outputs.
        """
        by_lot = _in_order(self._by_lot)
        darkest = [row for row in _in_order(self._darkest) if row not in by_lot]
        # threads and machines each keep their first few
        kept = run.rejected([row.input_key for row in self._harmed])
        harmed = sorted(self._harmed, key=lambda row: row.input_key not in kept)
        rejected = [_rejected(row, source, run) for row in harmed[: self._num]]
        parts = [
            f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
            _section("Random sample", [_figure(row, source, target) for row in by_lot]),
            _section("Darkest of the rest", [_figure(row, source, target) for row in darkest]),
            _section("Kept as they were: input and rejected output", rejected),
            _listing("Kept as they were", self._harmed),
            _listing("Not enhanced", self._bad),
        ]
        return "\n".join(parts) + "\n"


def escape(text: str) -> str:
    """As HTML on one line: an empty line would end the HTML in Prefect's Markdown."""
    return html.escape(shown(text))


def _in_order(heap: list[_Ranked]) -> list[Row]:
    return [each.row for each in sorted(heap, reverse=True)]


def _section(name: str, figures: Iterable[str | None]) -> str:
    there = [figure for figure in figures if figure]
    return f"<h2>{escape(name)}</h2>{''.join(there)}" if there else ""


def _figure(row: Row, source: Store, target: Store) -> str | None:
    before = _thumbnail(_reader(source), row.input_key)
    after = _thumbnail(_reader(target), row.output_key or "")
    if before is None or after is None:
        return None
    caption = escape(row.input_key)
    if row.luminance_before is not None and row.luminance_after is not None:
        caption += f"<br>luminance {row.luminance_before:.3f} to {row.luminance_after:.3f}"
    if row.reason:
        caption += f"<br>{escape(row.status.replace('_', ' '))}, {escape(row.reason)}"
    return f"<figure>{before} {after}<figcaption>{caption}</figcaption></figure>"


def _rejected(row: Row, source: Store, run: RunFolder) -> str | None:
    before = _thumbnail(_reader(source), row.input_key)
    if before is None:
        return None
    after = _thumbnail(run.read_rejected, row.input_key) or ""
    caption = f"{escape(row.input_key)}<br>{escape(row.reason or '')}"
    return f"<figure>{before} {after}<figcaption>{caption}</figcaption></figure>"


def _reader(store: Store) -> Callable[[str], bytes]:
    return lambda key: store.get(key).data


def _thumbnail(read: Callable[[str], bytes], key: str) -> str | None:
    advance()
    try:
        small = small_jpeg(decode(read(key), name=key, max_pixels=_MAX_PIXELS))
    except Exception as error:  # noqa: BLE001 - a page must not cost the records of the run
        logger.info("%s: not on the contact sheet: %s", key, error)
        return None
    text = base64.b64encode(small).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{text}">'


def _listing(name: str, rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{escape(row.input_key)}<td>{row.status}<td>{escape(row.reason or '')}"
        for row in rows
    )
    return f"<h2>{name}</h2><table><tr><th>input<th>fate<th>reason{lines}</table>"
