"""The leaderboard as a page that works offline, as Markdown and as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.leaderboard_method import shown
from benchmarks.leaderboard_rows import (
    Protocol,
    Row,
    SplitScore,
    load_failures,
    load_protocol,
    load_rows,
)
from mirnet.atomic import write_atomically
from mirnet.data.loading import load_pairs
from mirnet.images.thumbnails import data_uri
from mirnet.pages import template

_LONGEST_SIDE = 360
COLUMNS = (
    "method",
    "parameters",
    "GMAC",
    "core minutes",
    "steps",
    "PSNR dB",
    "95 %",
    "aligned PSNR",
    "95 %",
    "SSIM",
    "95 %",
    "CIEDE2000",
    "NIQE",
    "s per megapixel",
    "MiB per megapixel",
)
EVAL15_COLUMNS = ("eval15 PSNR dB", "95 %", "eval15 aligned", "eval15 SSIM")


@dataclass(frozen=True)
class _Page:
    title: str


def write_leaderboard(into: Path, data: Path) -> Path:
    """Write ``index.html``, ``table.md`` and ``leaderboard.json`` from the rows that are there."""
    protocol, rows, failures = load_protocol(into), load_rows(into), load_failures(into)
    with_eval15 = bool(protocol.roles["eval"])
    columns = COLUMNS + (EVAL15_COLUMNS if with_eval15 else ())
    table = [_cells(row, with_eval15=with_eval15) for row in rows]
    lines = [columns, ["---"] * len(columns), *table]
    markdown = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    missing = "".join(f"- {name}: {reason}\n" for name, reason in failures.items())
    write_atomically(
        into / "table.md", f"{markdown}\n{_notes(protocol)}\n\n{missing}".strip() + "\n"
    )
    kept = {
        "protocol": protocol.model_dump(mode="json"),
        "rows": [row.model_dump(mode="json") for row in rows],
        "failures": failures,
    }
    write_atomically(into / "leaderboard.json", json.dumps(kept, indent=2) + "\n")
    page = template("page.html").environment.from_string(_source())
    html = page.render(
        page=_Page(f"Leaderboard: {len(rows)} methods on {protocol.digest[:8]}"),
        protocol=protocol,
        columns=columns,
        table=table,
        notes=_notes(protocol),
        failures=failures,
        pairs=_pairs(protocol, rows, into, data),
        scenes=_scenes(protocol, rows),
        rows=rows,
    )
    return write_atomically(into / "index.html", html)


def _source() -> str:
    return Path(__file__).with_name("leaderboard.html").read_text(encoding="utf-8")


def _cells(row: Row, *, with_eval15: bool) -> list[str]:
    training, val = row.training, row.val
    cells = [
        row.name,
        f"{row.parameters:,}" if training else "",
        f"{row.gmac:.2f}" if training else "",
        f"{training.core_minutes:.2f}" if training else "",
        str(training.steps) if training else "",
        *_quality(val),
        f"{val.aligned_psnr:.2f}",
        "{:.2f} to {:.2f}".format(*val.aligned_interval),
        f"{val.ssim:.4f}",
        "{:.4f} to {:.4f}".format(*val.ssim_interval),
        f"{val.ciede2000:.2f}",
        "" if val.niqe is None else f"{val.niqe:.2f}",
        f"{val.seconds_per_megapixel:.3f}",
        "" if row.mib_per_megapixel is None else f"{row.mib_per_megapixel:.0f}",
    ]
    if not with_eval15 or row.eval15 is None:
        return cells + [""] * (len(EVAL15_COLUMNS) if with_eval15 else 0)
    held = row.eval15
    return [*cells, *_quality(held), f"{held.aligned_psnr:.2f}", f"{held.ssim:.4f}"]


def _quality(score: SplitScore) -> tuple[str, str]:
    return f"{score.psnr:.2f}", "{:.2f} to {:.2f}".format(*score.psnr_interval)


def _notes(protocol: Protocol) -> str:
    val = len(protocol.roles["val"])
    text = (
        f"Means over {val} validation pairs of other scenes, with 95 % bootstrap intervals over "
        "images. PSNR and SSIM are plain; aligned PSNR scales each output to the mean brightness "
        "of its reference, so it uses the answer. Core minutes are those that the weights took. "
        "Parameters, GMAC of a 400x600 image, seconds and MiB are of inference on the processor."
    )
    if protocol.roles["eval"]:
        text += (
            f" eval15 chooses nothing; {protocol.num_seen} of its {len(protocol.seen)} scenes are "
            "among the training pairs."
        )
    return text


def _pairs(
    protocol: Protocol, rows: list[Row], into: Path, data: Path
) -> list[tuple[str, list[tuple[str, str]]]]:
    """The shown validation pairs: low, reference, and the output of each method."""
    ids = shown(protocol.roles["val"])
    found = []
    for number, (pair_id, (low, high)) in enumerate(zip(ids, load_pairs(data, ids), strict=True)):
        images = [("dark input", _uri(low)), ("reference", _uri(high))]
        for row in rows:
            output = np.asarray(Image.open(into / row.name / "images" / f"{number}.png"))
            images.append((f"{row.name}, {row.val.psnr_of[pair_id]:.2f} dB", _uri(output)))
        found.append((pair_id, images))
    return found


def _scenes(protocol: Protocol, rows: list[Row]) -> list[tuple[str, str, list[str]]]:
    """Each pair of eval15, whether its scene was trained on, and the PSNR of each method."""
    scenes = []
    for pair_id in protocol.roles["eval"]:
        twin = protocol.seen.get(pair_id)
        values = [f"{row.eval15.psnr_of[pair_id]:.2f}" if row.eval15 else "" for row in rows]
        scenes.append((pair_id, f"seen in {twin}" if twin else "unseen", values))
    return scenes


def _uri(pixels: np.ndarray) -> str:
    small = Image.fromarray(pixels)
    small.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return data_uri(small, "WEBP", quality=85)
