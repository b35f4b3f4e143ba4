"""Where the thresholds of the gate come from: distributions over real pairs, and made faults.

    python -m benchmarks.data thresholds DIR ... [--image docs/images/thresholds.png]

Prints tables in Markdown, as docs/benchmarks/data.md shows them. Some minutes for 485 pairs.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import gaussian_filter, shift

from mirnet.data.alignment import PairFacts, align
from mirnet.data.checks import GAIN
from mirnet.data.layout import Pair, find_pairs
from mirnet.data.manifest import build_manifest
from mirnet.data.measures import FileFacts, Luminance, luminance, measure_file, noise_sigma_robust
from mirnet.data.scenes import TWIN, similarity
from mirnet.images import read_rgb
from mirnet.params import ValidateParams

QUANTILES = (0.0, 0.001, 0.01, 0.05, 0.5, 0.95, 0.99, 0.999, 1.0)
MADE_SHIFTS = (1, 2, 3, 5)
SIDES = (96, 128, 192, 256)
GAINS = (0.0, 0.005, 0.01, 0.02, 0.03)
_RIVALS = 3
"""Highs of other scenes that each low is compared with."""
_COUPLES = 1500
"""Most alike thumbnails that are fitted."""


@dataclass(frozen=True)
class Measured:
    """One pair and what was done to it."""

    id: str
    low: FileFacts
    high: FileFacts
    structure: float
    """Standard deviation of the low after smoothing, over that of its noise."""
    own: PairFacts
    made: dict[int, PairFacts]
    """By pixels of a made shift downwards."""
    parts: dict[int, tuple[PairFacts, PairFacts]]
    """By side of the middle square: as it is, and shifted by three pixels."""
    rivals: tuple[float, ...]
    """Correlations with highs of other scenes."""
    cost: dict[float, float]
    """PSNR of the reference against itself, by pixels that it is moved."""
    recoded: float
    """Similarity to itself after a crop of 15 %, half size and JPEG 60."""

    @property
    def pixels(self) -> float:
        """Shift on either axis, where the correlation is best."""
        return max(abs(self.own.shift_x or 0.0), abs(self.own.shift_y or 0.0))


def measure(pair: Pair, rivals: Sequence[Path]) -> Measured:
    """All figures of one pair."""
    (low, low_grey), (high, high_grey) = (
        measure_file(path) for path in (pair.low_path, pair.high_path)
    )
    assert low_grey is not None and high_grey is not None
    others = [luminance(read_rgb(path)) for path in rivals]
    assert high.thumb is not None
    return Measured(
        id=pair.id,
        low=low,
        high=high,
        structure=float(gaussian_filter(low_grey, 4).std())
        / max(0.1, noise_sigma_robust(low_grey)),
        own=align(low_grey, high_grey),
        made={n: align(low_grey[n:], high_grey[:-n]) for n in MADE_SHIFTS},
        parts={
            side: (
                align(_middle(low_grey, side), _middle(high_grey, side)),
                align(_middle(low_grey, side), _middle(high_grey, side, down=3)),
            )
            for side in SIDES
        },
        rivals=tuple(
            fit.alignment
            for other in others
            if (fit := align(low_grey, other)).alignment is not None
        ),
        cost={n: _cost(high_grey, n) for n in (0.5, 1.0, 1.5, 2.0, 3.0)},
        recoded=similarity(high.thumb, _recoded(pair.high_path)),
    )


def _middle(grey: Luminance, side: int, down: int = 0) -> Luminance:
    top, left = ((n - side) // 2 for n in grey.shape)
    return grey[top + down : top + down + side, left : left + side]


def _cost(grey: Luminance, pixels: float) -> float:
    moved = shift(grey, (pixels, 0.0), order=3, mode="nearest")
    error = float(((moved - grey)[8:-8] ** 2).mean())
    return float(20 * np.log10(255) - 10 * np.log10(max(error, 1e-6)))


def _recoded(path: Path) -> bytes:
    """Thumbnail of an image that was cropped, halved and encoded as JPEG."""
    picture = Image.fromarray(read_rgb(path))
    width, height = picture.size
    corner = picture.crop((int(width * 0.15), 0, width, int(height * 0.85)))
    buffer = io.BytesIO()
    corner.resize((width // 2, height // 2)).save(buffer, "JPEG", quality=60)
    grey = luminance(np.asarray(Image.open(buffer).convert("RGB")))
    small = Image.fromarray(grey).resize((64, 64), Image.Resampling.BOX)
    return np.asarray(small).astype(np.uint8).tobytes()


def report(folder: Path, image: Path | None, cache_dir: Path | None = None) -> None:
    """Measure all pairs of a folder and print the tables."""
    pairs = find_pairs(folder)
    manifest = build_manifest(folder, cache_dir=cache_dir).set_index("pair")
    scenes = [manifest.loc[pair.id, "scene"] for pair in pairs]
    with ProcessPoolExecutor() as pool:
        rows = list(pool.map(partial(_job, pairs, scenes), range(len(pairs)), chunksize=4))
    print(f"{folder}: {len(pairs)} pairs, {len(set(scenes))} scenes\n")
    alike = [row for row in rows if (row.own.alignment or 0) >= ValidateParams().min_alignment]
    _print_quantiles(rows, alike)
    _print_extremes(rows, alike)
    _print_shifts(alike)
    _print_sides(alike)
    couples = _couples(rows, scenes)
    _print_couples(rows, couples)
    if image:
        _draw(rows, alike, [value for value, *_ in couples], image)


def _job(pairs: Sequence[Pair], scenes: Sequence[object], number: int) -> Measured:
    rng = np.random.default_rng(number)
    strangers = [i for i, scene in enumerate(scenes) if scene != scenes[number]]
    chosen = rng.choice(strangers, size=min(_RIVALS, len(strangers)), replace=False)
    return measure(pairs[number], [pairs[i].high_path for i in chosen])


def _gain(fit: PairFacts) -> float:
    return (fit.alignment or 0.0) - (fit.in_place or 0.0)


def _rows_of(rows: Sequence[Measured], alike: Sequence[Measured]) -> dict[str, list[float]]:
    return {
        "99th percentile of the low, grey levels": [row.low.p99 or 0.0 for row in rows],
        "share of the high at 250 and above": [row.high.clipped or 0.0 for row in rows],
        "exposure ratio": [((row.high.mean or 0) + 1) / ((row.low.mean or 0) + 1) for row in rows],
        "correlation, own high": [row.own.alignment or 0.0 for row in rows],
        "correlation, high of another scene": [value for row in rows for value in row.rivals],
        "shift of the pairs that are alike, pixels": [row.pixels for row in alike],
        "correlation that the shift adds": [_gain(row.own) for row in alike],
        "similarity to itself recoded": [row.recoded for row in rows],
    }


def _print_quantiles(rows: Sequence[Measured], alike: Sequence[Measured]) -> None:
    heads = ["least", *(f"{q:.1%}" for q in QUANTILES[1:-1]), "most"]
    print(f"| figure | {' | '.join(heads)} |")
    print("| --- |" + " --- |" * len(heads))
    for name, values in _rows_of(rows, alike).items():
        found = " | ".join(f"{value:.4g}" for value in np.quantile(values, QUANTILES))
        print(f"| {name} | {found} |")
    print()


def _print_extremes(rows: Sequence[Measured], alike: Sequence[Measured]) -> None:
    def ends(key: str, values: Iterable[tuple[Any, ...]], *, most: bool = False) -> None:
        chosen = sorted(values, reverse=most)[:12]
        print(f"{key}: " + "; ".join(" ".join(_short(part) for part in one) for one in chosen))

    ends("darkest lows, p99, structure over noise", ((r.low.p99, r.structure, r.id) for r in rows))
    ends("whitest highs", ((r.high.clipped, r.id) for r in rows), most=True)
    ends("least aligned", ((r.own.alignment, r.id) for r in rows))
    ends("largest shifts", ((r.pixels, _gain(r.own), r.id) for r in alike), most=True)
    ends("smallest exposure ratios", ((((r.high.mean or 0) + 1) / ((r.low.mean or 0) + 1), r.id)
                                      for r in rows))  # fmt: skip
    print()


def _short(part: object) -> str:
    return f"{part:.3g}" if isinstance(part, float) else Path(str(part)).stem


def _print_shifts(alike: Sequence[Measured]) -> None:
    print("| made shift, pixels | seen, of those within 0.5 pixels | least gain | 1 % |")
    print("| --- | --- | --- | --- |")
    still = [row for row in alike if row.pixels <= 0.5]
    for pixels in MADE_SHIFTS:
        fits = [row.made[pixels] for row in still]
        seen = [_seen(fit, GAIN) for fit in fits]
        gains = [_gain(fit) for fit in fits]
        print(f"| {pixels} | {sum(seen)} of {len(still)} | {min(gains):.3f} | "
              f"{np.quantile(gains, 0.01):.3f} |")  # fmt: skip
    print("\n| moved by, pixels | PSNR of the reference against itself: 5 %, median, 95 % |")
    print("| --- | --- |")
    for moved in alike[0].cost:
        low, middle, high = np.quantile([row.cost[moved] for row in alike], (0.05, 0.5, 0.95))
        print(f"| {moved} | {low:.1f}, {middle:.1f}, {high:.1f} dB |")
    print()


def _print_sides(alike: Sequence[Measured]) -> None:
    params = ValidateParams()
    heads = " | ".join(f"gain {gain}" for gain in GAINS)
    print(f"| side | unlike | wrongly shifted with a least {heads} | made shift of 3 seen |")
    print("| --- | --- |" + " --- |" * (len(GAINS) + 1))
    still = [row for row in alike if row.pixels <= 0.5]
    for side in SIDES:
        fits = [row.parts[side] for row in still]
        known = [(own, made) for own, made in fits if own.alignment is not None]
        unlike = sum((own.alignment or 0) < params.min_alignment for own, _ in known)
        wrong = [sum(_seen(own, gain) for own, _ in known) for gain in GAINS]
        seen = sum(_seen(made, GAIN) for _, made in known)
        print(f"| {side} | {unlike} | {' | '.join(map(str, wrong))} | {seen} of {len(known)} |")
    print()


def _seen(fit: PairFacts, gain: float) -> bool:
    params = ValidateParams()
    pixels = max(abs(fit.shift_x or 0), abs(fit.shift_y or 0))
    alike = (fit.alignment or 0) >= params.min_alignment
    return alike and pixels > params.max_shift and _gain(fit) > gain


def _couples(
    rows: Sequence[Measured], scenes: Sequence[object]
) -> list[tuple[float, bool, int, int]]:
    """Similarity, whether of one scene, and the couple: the most alike, and all of one scene."""
    vectors = np.stack([_vector(row.high.thumb or b"") for row in rows])
    close = vectors @ vectors.T
    order = sorted(itertools.combinations(range(len(rows)), 2), key=lambda couple: -close[couple])
    wanted = set(order[:_COUPLES]) | {(i, j) for i, j in order if scenes[i] == scenes[j]}
    with ProcessPoolExecutor() as pool:
        thumbs = [row.high.thumb for row in rows]
        listed = sorted(wanted)
        firsts, seconds = ([thumbs[couple[end]] for couple in listed] for end in (0, 1))
        values = list(pool.map(similarity, firsts, seconds, chunksize=32))
    found = [
        (value, scenes[i] == scenes[j], i, j) for value, (i, j) in zip(values, listed, strict=True)
    ]
    return sorted(found)


def _vector(thumb: bytes) -> npt.NDArray[np.float32]:
    values = np.frombuffer(thumb, np.uint8).astype(np.float32)
    values = values - values.mean()
    return np.asarray(values / (np.linalg.norm(values) + 1e-6), np.float32)


def _print_couples(
    rows: Sequence[Measured], couples: Sequence[tuple[float, bool, int, int]]
) -> None:
    edges = [0.0, 0.7, 0.75, 0.8, 0.84, 0.88, TWIN, 0.95, 0.97, 0.98, 0.99, 1.01]
    counts, _ = np.histogram([value for value, *_ in couples], edges)
    print("| similarity | couples |\n| --- | --- |")
    for least, most, count in zip(edges, edges[1:], counts, strict=False):
        print(f"| {least:.2f} to {min(most, 1):.2f} | {count} |")
    near = [one for one in couples if 0.8 < one[0] < 0.97]
    print("between 0.8 and 0.97: " + "; ".join(
        f"{value:.3f} {Path(rows[i].id).stem} {Path(rows[j].id).stem}" + (" (joined)" * same)
        for value, same, i, j in near))  # fmt: skip


def _draw(
    rows: Sequence[Measured], alike: Sequence[Measured], similar: Sequence[float], path: Path
) -> None:
    """Histograms with the thresholds, counts on a logarithmic axis."""
    from matplotlib.figure import Figure

    params = ValidateParams()
    figures = _rows_of(rows, alike)
    own, other = figures["correlation, own high"], figures["correlation, high of another scene"]
    panels: list[tuple[str, list[Sequence[float]], float]] = [
        ("99th percentile of the low", [figures["99th percentile of the low, grey levels"]],
         params.min_low_p99),
        ("share of the high at 250 and above", [figures["share of the high at 250 and above"]],
         params.max_high_clipped),
        ("correlation: own high, other scenes", [own, other], params.min_alignment),
        ("shift, pixels", [figures["shift of the pairs that are alike, pixels"]],
         params.max_shift),
        ("gain: pairs as they are, made shift of 3",
         [figures["correlation that the shift adds"], [_gain(row.made[3]) for row in alike]], GAIN),
        ("similarity of the most alike thumbnails", [similar], TWIN),
    ]  # fmt: skip
    figure = Figure(figsize=(11, 6), layout="constrained")
    for axes, (title, values, threshold) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        axes.hist(values, bins=40, label=None, log=True)
        axes.axvline(threshold, color="black", linestyle="--")
        axes.set_title(f"{title} ({threshold:g})", fontsize=9)
    figure.savefig(path, dpi=80)
