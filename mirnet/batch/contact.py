"""A page of before and after beside the manifest: some pictures by lot, the darkest results,
and what was quarantined.
"""

from __future__ import annotations

import base64
import hashlib
import heapq
from collections.abc import Iterable
from html import escape
from typing import NamedTuple

import numpy as np

from mirnet.batch.records import Row
from mirnet.batch.storage import KeyRefused, ObjectMissing, Store, TransientStorageError
from mirnet.errors import ImageError
from mirnet.images import Image, decode, encode

_SIDE = 240
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
    """Choose rows while they pass, then fetch and show the chosen few."""

    def __init__(self, *, num_images: int) -> None:
        self._num = num_images
        self._by_lot: list[_Ranked] = []
        self._darkest: list[_Ranked] = []
        self._bad: list[Row] = []

    def add(self, row: Row) -> None:
        """Consider a row."""
        if row.status in ("quarantined", "failed"):
            if len(self._bad) < _MAX_LISTED:
                self._bad.append(row)
            return
        lot = int.from_bytes(hashlib.sha256(row.input_key.encode()).digest()[:6])
        self._offer(self._by_lot, -float(lot), row)
        if row.luminance_after is not None:
            self._offer(self._darkest, -row.luminance_after, row)

    def worst(self) -> list[Row]:
        """What was not enhanced, then the darkest results; few."""
        return [*self._bad[:_MAX_WORST], *_in_order(self._darkest)]

    def _offer(self, heap: list[_Ranked], rank: float, row: Row) -> None:
        heapq.heappush(heap, _Ranked(rank, row.input_key, row))
        if len(heap) > self._num:
            heapq.heappop(heap)

    def render(self, source: Store, target: Store, *, title: str) -> str:
        """One self-contained HTML page; pictures that are gone by now are left out."""
        by_lot = _in_order(self._by_lot)
        darkest = [row for row in _in_order(self._darkest) if row not in by_lot]
        parts = [
            f"<!doctype html><meta charset=utf-8><title>{escape(title)}</title>",
            f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
            _section("By lot", by_lot, source, target),
            _section("Darkest of the rest", darkest, source, target),
            _listing(self._bad),
        ]
        return "\n".join(parts) + "\n"


def _in_order(heap: list[_Ranked]) -> list[Row]:
    return [each.row for each in sorted(heap, reverse=True)]


def _section(name: str, rows: Iterable[Row], source: Store, target: Store) -> str:
    figures = [figure for row in rows if (figure := _figure(row, source, target))]
    return f"<h2>{name}</h2>{''.join(figures)}" if figures else ""


def _figure(row: Row, source: Store, target: Store) -> str | None:
    try:
        before = _thumbnail(source.get(row.input_key).data, row.input_key)
        after = _thumbnail(target.get(row.output_key or "").data, row.input_key)
    except (ImageError, KeyRefused, ObjectMissing, TransientStorageError):
        return None
    caption = escape(row.input_key)
    if row.luminance_before is not None and row.luminance_after is not None:
        caption += f"<br>luminance {row.luminance_before:.3f} to {row.luminance_after:.3f}"
    return f"<figure>{before} {after}<figcaption>{caption}</figcaption></figure>"


def _thumbnail(data: bytes, name: str) -> str:
    image = decode(data, name=name, max_pixels=_MAX_PIXELS)
    pixels = image.pixels
    step = max(1, -(-max(pixels.shape[:2]) // _SIDE))
    small = np.ascontiguousarray(pixels[::step, ::step])
    text = base64.b64encode(encode(Image(small), format="JPEG", quality=85)).decode()
    return f'<img alt="" width="{small.shape[1]}" src="data:image/jpeg;base64,{text}">'


def _listing(rows: list[Row]) -> str:
    if not rows:
        return ""
    lines = "".join(
        f"<tr><td>{escape(row.input_key)}<td>{row.status}<td>{escape(row.reason or '')}"
        for row in rows
    )
    return f"<h2>Not enhanced</h2><table><tr><th>input<th>fate<th>reason{lines}</table>"
