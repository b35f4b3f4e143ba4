"""Images of the flagged pairs on the pages of Great Expectations."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.data.layout import SIDES
from mirnet.errors import ImageError
from mirnet.images import decode
from mirnet.images.thumbnails import data_uri, to_8_bit
from mirnet.redaction import shown
from mirnet.results import Finding

_WIDTH = 180
_MOST = 200
_STYLE = "display:flex;gap:12px;align-items:center;padding:8px 0;border-top:1px solid #ddd"


def add_thumbnails(
    docs_dir: Path, root: Path, findings: Sequence[Finding], manifest: pd.DataFrame
) -> None:
    """Append the flagged pairs, with thumbnails of both sides, to the pages of the results.

    The low is shown unchanged and stretched to full range, to make its content visible.
    """
    section = _section(root, findings, manifest)
    for page in sorted(docs_dir.glob("validations/**/*.html")):
        text = page.read_text(encoding="utf-8")
        before, end, after = text.rpartition("</body>")
        write_atomically(page, before + section + end + after)


def _section(root: Path, findings: Sequence[Finding], manifest: pd.DataFrame) -> str:
    files = manifest.drop_duplicates("pair").set_index("pair")
    images: dict[str, str] = {}
    rows = []
    for finding in findings[:_MOST]:
        if finding.pair in files.index and finding.pair not in images:
            row = files.loc[finding.pair]
            images[finding.pair] = "".join(_views(root, row[side], side) for side in SIDES)
        colour = "#b3261e" if finding.severity == "critical" else "#8a6d00"
        rows.append(
            f'<div style="{_STYLE}">{images.get(finding.pair, "")}'
            f'<div><b style="color:{colour}">{finding.severity}</b> {html.escape(finding.check)}'
            f"<br>{html.escape(shown(finding.message))}</div></div>"
        )
    more = (
        f"<p>{len(findings) - _MOST} more are in the JSON report.</p>" if findings[_MOST:] else ""
    )
    body = "".join(rows) or "<p>Nothing was found.</p>"
    return f'<div class="container" id="findings"><h3>Flagged pairs</h3>{body}{more}</div>'


def _views(root: Path, relative: object, side: str) -> str:
    if not isinstance(relative, str):
        return ""
    try:
        image = decode((root / relative).read_bytes(), name=relative)
    except (ImageError, OSError):
        return f"<div>{html.escape(side)}: no image</div>"
    small = Image.fromarray(to_8_bit(image.pixels))
    small.thumbnail((_WIDTH, _WIDTH))
    views = [small]
    if side == "low":
        values = np.asarray(small, np.float32)
        top = max(1.0, float(np.percentile(values, 99.5)))
        views.append(Image.fromarray(np.clip(values / top * 255, 0, 255).astype(np.uint8)))
    uris = (data_uri(view, "JPEG", quality=80) for view in views)
    return "".join(f'<img alt="{side}" src="{uri}">' for uri in uris)
