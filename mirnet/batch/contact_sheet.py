"""The contact sheet beside the manifest: random images before and after, the darkest results,
outputs rejected by the safety checks, and quarantined inputs.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
import html
import logging
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

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
    "a{color:#7cc7ff}td,th{padding:.1em 1em .1em 0;text-align:left}"
    ".pair{color:#aaa;border-spacing:0}.pair td{padding:0 .3em 0 0}"
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
        self._counts: Counter[str] = Counter()

    def add(self, row: Row) -> None:
        """Consider a row."""
        self._counts[row.status] += 1
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
        links = _Links(run.page_address, source, target)
        by_lot = _in_order(self._by_lot)
        darkest = [row for row in _in_order(self._darkest) if row not in by_lot]
        # threads and machines each keep their first few
        kept = run.rejected([row.input_key for row in self._harmed])
        harmed = sorted(self._harmed, key=lambda row: row.input_key not in kept)
        rejected = [_rejected(row, links, run) for row in harmed[: self._num]]
        parts = [
            f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
            _totals(self._counts),
            _section(
                "Before and after: a random sample",
                [_figure(row, links) for row in by_lot],
            ),
            _section(
                "Before and after: the darkest results",
                [_figure(row, links) for row in darkest],
            ),
            _section("Left unchanged by the safety checks: input and rejected output", rejected),
            _listing("Left unchanged by the safety checks", self._harmed, links),
            _listing("Not enhanced", self._bad, links),
        ]
        return "\n".join(parts) + "\n"


@dataclass(frozen=True)
class _Links:
    """To whole images, relative to the page: they hold where page and images are copied or served.

    From a bucket to another there is no relative address, and browsers do not open ``s3://``: the
    address is text.
    """

    page: str
    source: Store
    target: Store

    def input(self, row: Row) -> str:
        return relative_link(self.page, self.source.address(row.input_key), row.input_key)

    def output(self, row: Row) -> str:
        return relative_link(self.page, self.target.address(row.output_key or ""), "enhanced")


def relative_link(page: str, address: str, text: str) -> str:
    """HTML of a link from a page to an image; the address as text where there is none."""
    root, folder = _place(posixpath.dirname(page))
    other, path = _place(address)
    if root != other or posixpath.normpath(path) != path:  # keys may have empty parts
        return escape(address)
    relative = quote(posixpath.relpath(path, folder))
    return f'<a href="{html.escape(relative, quote=True)}">{escape(text)}</a>'


def _place(address: str) -> tuple[str, str]:
    """Bucket, or none for a local path, and the path in it."""
    scheme, separator, path = address.partition("://")
    if separator and scheme == "s3":
        bucket, _, key = path.partition("/")
        return bucket, f"/{key}"
    return "", str(Path(address).absolute())


def escape(text: str) -> str:
    """As HTML on one line: an empty line would end the HTML in Prefect's Markdown."""
    return html.escape(shown(text))


def _in_order(heap: list[_Ranked]) -> list[Row]:
    return [each.row for each in sorted(heap, reverse=True)]


def _section(name: str, figures: Iterable[str | None]) -> str:
    there = [figure for figure in figures if figure]
    return f"<h2>{escape(name)}</h2>{''.join(there)}" if there else ""


def _figure(row: Row, links: _Links) -> str | None:
    before = _thumbnail(_reader(links.source), row.input_key)
    after = _thumbnail(_reader(links.target), row.output_key or "")
    if before is None or after is None:
        return None
    caption = f"{links.input(row)}, {links.output(row)}"
    if row.luminance_before is not None and row.luminance_after is not None:
        caption += f"<br>luminance {row.luminance_before:.3f} to {row.luminance_after:.3f}"
    if row.reason:
        caption += f"<br>{escape(row.status.replace('_', ' '))}, {escape(row.reason)}"
    return _pair(before, after, "after", caption)


def _rejected(row: Row, links: _Links, run: RunFolder) -> str | None:
    before = _thumbnail(_reader(links.source), row.input_key)
    if before is None:
        return None
    after = _thumbnail(run.read_rejected, row.input_key) or ""
    caption = f"{links.input(row)}<br>{escape(row.reason or '')}"
    return _pair(before, after, "rejected", caption)


def _pair(before: str, after: str, kind: str, caption: str) -> str:
    # a table is side by side in Prefect's Markdown too, which has no style sheet
    halves = f"<tr><td>before<br>{before}<td>{kind}<br>{after}</table>"
    return f'<figure><table class="pair">{halves}<figcaption>{caption}</figcaption></figure>'


def _totals(counts: Mapping[str, int]) -> str:
    """Images of the run by their result."""
    cells = "".join(
        f"<tr><td>{escape(status.replace('_', ' '))}<td>{count}"
        for status, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    total = sum(counts.values())
    return f"<table><tr><th>images of this run<th>{total}{cells}</table>"


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


def _listing(name: str, rows: list[Row], links: _Links) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{links.input(row)}<td>{row.status}<td>{escape(row.reason or '')}" for row in rows
    )
    return f"<h2>{name}</h2><table><tr><th>input<th>result<th>reason{lines}</table>"
