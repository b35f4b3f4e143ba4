"""One self-contained HTML report of a scored model; works offline and without JavaScript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from mirnet.atomic import write_atomically
from mirnet.evaluation import anatomy, charts
from mirnet.evaluation.gate import Decision
from mirnet.evaluation.scoring import ScoredPair
from mirnet.evaluation.slices import thirds
from mirnet.evaluation.statistics import Gain
from mirnet.images.thumbnails import data_uri
from mirnet.pages import template
from mirnet.results import EpochMetrics, MethodScore

LONGEST_SIDE = 1600
"""Images up to this size are shown pixel by pixel."""
MAX_IMAGES = 15
_WEBP_QUALITY = 90
_GAIN = "gain"
_TEMPLATE = "evaluation/report.html"

_COLUMNS = {
    "ms_ssim": "MS-SSIM",
    "ciede2000": "CIEDE2000",
    "gt_mean_psnr": "GT-mean PSNR",
    "gt_mean_ssim": "GT-mean SSIM",
    "noise": "noise",
    "seconds_per_megapixel": "s per megapixel",
}
# defect, title, unit
_DEFECTS = {
    "added_clipping": ("Clipping", "share of pixels clipped beyond the reference's"),
    "colour_cast": ("Colour cast", "distance of mean colours in CIE a*b*"),
    "halo": ("Halo", "grey levels of overshoot beside strong edges"),
    "added_noise": ("Residual noise", "grey levels of noise beyond the reference's"),
}


@dataclass(frozen=True)
class Page:
    title: str
    candidate: str
    facts: Mapping[str, str] = field(default_factory=dict)
    history: Sequence[EpochMetrics] = ()
    decision: Decision | None = None
    run_id: str = ""


@dataclass(frozen=True)
class GalleryEntry:
    """One pair of the gallery; images as data URIs by kind."""

    pair_id: str
    rank: str
    psnr: float
    ssim: float
    gain: float
    size: str
    images: Mapping[str, str]


def render_report(
    target: Path,
    page: Page,
    *,
    scores: pd.DataFrame,
    summary: Mapping[str, MethodScore],
    pairs: Sequence[ScoredPair],
    outputs: Mapping[tuple[str, str], NDArray[np.uint8]],
    baseline: str = "autocontrast",
) -> Path:
    """Write the report.

    Args:
        scores: one row per image and method; with ``page.candidate``, and ``baseline`` if its
            images and gains are to be shown.
        outputs: outputs of the methods, by (pair id, method).
    """
    shown = baseline if baseline in summary and baseline != page.candidate else None
    gallery = _gallery(page.candidate, shown, scores=scores, pairs=pairs, outputs=outputs)
    html = template(_TEMPLATE).render(
        page=page,
        decision=page.decision,
        outcome="",
        baseline=shown,
        rows=_summary_rows(summary),
        columns=_COLUMNS,
        curves=[(k, Markup(v)) for k, v in charts.training_curves(page.history).items()]
        if page.history
        else [],
        anatomy=_anatomy(page.candidate, shown, scores),
        parts=anatomy.PARTS,
        gallery=gallery,
        num_pairs=len(pairs),
        charts=[
            *_distributions(page.candidate, scores, summary, pairs, outputs),
            ("What the squared error is made of", _anatomy_chart(page.candidate, scores)),
        ],
        failures=_failures(page.candidate, scores, shown={entry.pair_id for entry in gallery}),
        images=_candidate_rows(page.candidate, shown, scores)
        .sort_values("psnr")
        .to_dict("records"),
        longest_side=LONGEST_SIDE,
        quality=_WEBP_QUALITY,
    )
    return write_atomically(target, html)


def add_decision(page: Path, run_id: str, decision: Decision, *, outcome: str) -> bool:
    """Add the gate's decision to an existing report, replacing an earlier one.

    Returns:
        False: the report is missing or of another run, and is unchanged.
    """
    begin, end = f"<!--verdict of {run_id}-->", "<!--end of verdict-->"
    html = page.read_text(encoding="utf-8") if page.is_file() else ""
    if begin not in html:
        return False
    page_template = template(_TEMPLATE)
    context = page_template.new_context({"decision": decision, "outcome": outcome})
    verdict = "".join(page_template.blocks["verdict"](context))
    before, _, rest = html.partition(begin)
    write_atomically(page, before + begin + verdict + rest[rest.index(end) :])
    return True


def _summary_rows(summary: Mapping[str, MethodScore]) -> list[tuple[MethodScore, str]]:
    """Each method with the candidate's paired gain over it."""
    return [
        (score, str(Gain(*score.gain, score.num_images)) if score.gain else "")
        for score in summary.values()
    ]


def _gallery(
    candidate: str,
    baseline: str | None,
    *,
    scores: pd.DataFrame,
    pairs: Sequence[ScoredPair],
    outputs: Mapping[tuple[str, str], NDArray[np.uint8]],
) -> list[GalleryEntry]:
    """Best, worst and median first; all pairs if there are few, else evenly over the ranks."""
    table = _candidate_rows(candidate, baseline, scores).sort_values("psnr", ascending=False)
    by_id = {pair_id: (low, high) for pair_id, low, high in pairs}
    ranks = _ranks(len(table))
    chosen = np.unique(np.linspace(0, len(table) - 1, min(len(table), MAX_IMAGES)).round())
    order = sorted((int(i) for i in chosen), key=lambda i: (i not in ranks, i))
    entries = []
    for index in order:
        row = table.iloc[index]
        pair_id = str(row["pair_id"])
        low, high = by_id[pair_id]
        shown = {"dark input": low}
        if baseline:
            shown[baseline] = outputs[pair_id, baseline]
        shown |= {"enhanced": outputs[pair_id, candidate], "reference": high}
        entries.append(
            GalleryEntry(
                pair_id=pair_id,
                rank=ranks.get(index, f"rank {index + 1} of {len(table)}"),
                psnr=float(row["psnr"]),
                ssim=float(row["ssim"]),
                gain=float(row[_GAIN]),
                size=f"{low.shape[1]}x{low.shape[0]}",
                images={name: _data_uri(pixels) for name, pixels in shown.items()},
            )
        )
    return entries


def _ranks(number: int) -> dict[int, str]:
    names = {(number - 1) // 2: "median", number - 1: "worst", 0: "best"}
    return dict(sorted(names.items()))


def _candidate_rows(candidate: str, baseline: str | None, scores: pd.DataFrame) -> pd.DataFrame:
    rows = scores[scores["method"] == candidate].reset_index(drop=True)
    if baseline is None:
        return rows.assign(**{_GAIN: float("nan")})
    against = scores[scores["method"] == baseline].set_index("pair_id")["psnr"]
    return rows.assign(**{_GAIN: rows["psnr"] - rows["pair_id"].map(against)})


def _distributions(
    candidate: str,
    scores: pd.DataFrame,
    summary: Mapping[str, MethodScore],
    pairs: Sequence[ScoredPair],
    outputs: Mapping[tuple[str, str], NDArray[np.uint8]],
) -> list[tuple[str, Markup]]:
    by_method = {name: scores.loc[scores["method"] == name, "psnr"].tolist() for name in summary}
    kinds = {
        "low": [low for _, low, _ in pairs],
        "enhanced": [outputs[pair_id, candidate] for pair_id, _, _ in pairs],
        "reference": [high for _, _, high in pairs],
    }
    return [
        ("PSNR of every image", Markup(charts.score_strips(by_method, label="PSNR, dB"))),
        ("Brightness", Markup(charts.brightness_histogram(kinds))),
    ]


@dataclass(frozen=True)
class ErrorRow:
    """Mean squared error of a group of images, in squared grey levels, and shares of its parts."""

    name: str
    num_images: int
    total: float
    shares: Mapping[str, float]


def _anatomy(candidate: str, baseline: str | None, scores: pd.DataFrame) -> list[ErrorRow]:
    """The parts of the error: of the candidate, also by darkness, and of the baseline."""
    groups = {candidate: scores[scores["method"] == candidate]}
    groups |= {f"{candidate}, {name}": rows for name, rows in _thirds(groups[candidate]).items()}
    if baseline is not None:
        groups[baseline] = scores[scores["method"] == baseline]
    found = []
    for name, rows in groups.items():
        parts = _parts(rows)
        total = sum(parts.values())
        shares = {part: value / max(total, 1e-12) for part, value in parts.items()}
        found.append(ErrorRow(name, len(rows), total, shares))
    return found


def _anatomy_chart(candidate: str, scores: pd.DataFrame) -> Markup:
    rows = scores[scores["method"] == candidate]
    groups = {"all images": rows, **_thirds(rows)}
    bars = {name: _parts(group) for name, group in groups.items()}
    return Markup(charts.stacked_bars(bars, label="mean squared error, squared grey levels"))


def _thirds(rows: pd.DataFrame) -> dict[str, pd.DataFrame]:
    return {f"{name} third": rows[chosen] for name, chosen in thirds(rows["low_luma"]).items()}


def _parts(rows: pd.DataFrame) -> dict[str, float]:
    means = rows[list(anatomy.COLUMNS)].mean()
    return dict(zip(anatomy.PARTS, map(float, means), strict=True))


def _failures(
    candidate: str, scores: pd.DataFrame, *, shown: set[str]
) -> list[tuple[str, str, list[tuple[str, float, bool]]]]:
    """The three images with the strongest defect of each kind, and whether the gallery has them."""
    rows = scores[scores["method"] == candidate]
    found = []
    for column, (name, unit) in _DEFECTS.items():
        worst = rows.sort_values(column, ascending=False).head(3)
        cases = [
            (str(p), float(v), str(p) in shown)
            for p, v in zip(worst["pair_id"], worst[column], strict=True)
        ]
        found.append((name, unit, cases))
    return found


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    return data_uri(image, "WEBP", quality=_WEBP_QUALITY)
