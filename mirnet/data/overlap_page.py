"""The page of what two sets share: one HTML file that works offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.data.overlap import Overlap, Shared
from mirnet.data.scenes import TWIN
from mirnet.images import decode
from mirnet.images.thumbnails import data_uri, to_8_bit
from mirnet.pages import template

MOST = 200
"""Matches shown on the page."""
_LONGEST_SIDE = 320


@dataclass(frozen=True)
class _Page:
    title: str


@dataclass(frozen=True)
class _Entry:
    shared: Shared
    images: tuple[tuple[str, str], ...]


def render_overlap(target: Path, first: Path, second: Path, overlap: Overlap) -> Path:
    """Write the page: the images of a match side by side, that of the first set at the left."""
    entries = [
        _Entry(
            shared,
            (
                (f"{first.name}/{shared.first}", _uri(first / shared.first)),
                (f"{second.name}/{shared.second}", _uri(second / shared.second)),
            ),
        )
        for shared in overlap.shared[:MOST]
    ]
    page = _Page(f"Scenes of {first.name} in {second.name}")
    html = template("data/overlap.html").render(
        page=page, overlap=overlap, entries=entries, twin=TWIN
    )
    return write_atomically(target, html)


def _uri(path: Path) -> str:
    small = Image.fromarray(to_8_bit(decode(path.read_bytes(), name=path.name).pixels))
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return data_uri(small, "WEBP", quality=85)
