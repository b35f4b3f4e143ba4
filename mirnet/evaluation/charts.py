"""Figures of the report as inline SVG, drawn without a display and without global state."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mirnet.evaluation.metrics import luma
from mirnet.redaction import shown
from mirnet.results import EpochMetrics

_COLOURS = ("#0b7285", "#e8590c", "#5f3dc4", "#495057")
_PARTS = ("#f59f00", "#d6336c", "#5f3dc4", "#0b7285", "#868e96")
_GREY = "#868e96"


def training_curves(history: Sequence[EpochMetrics]) -> dict[str, str]:
    """The report's two figures: loss and PSNR over epochs, training and validation."""
    epochs = [metrics.epoch for metrics in history]
    loss: dict[str, Sequence[float | None]] = {
        "training": [m.train_loss for m in history],
        "validation": [m.val_loss for m in history],
    }
    psnr: dict[str, Sequence[float | None]] = {
        "training": [m.train_psnr for m in history],
        "validation": [m.val_psnr for m in history],
    }
    return {
        "Loss": _lines(epochs, loss, label="loss"),
        "PSNR": _lines(epochs, psnr, label="PSNR, dB"),
    }


def brightness_histogram(kinds: Mapping[str, Sequence[NDArray[np.uint8]]]) -> str:
    """Share of pixels by luma over all images, one line per kind (low, enhanced, reference)."""
    bins = np.arange(0, 257, 4)
    figure, axes = _figure()
    for colour, (name, images) in zip(_COLOURS, kinds.items(), strict=False):
        counts = sum((np.histogram(luma(image), bins)[0] for image in images), np.zeros(64))
        share = counts / max(counts.sum(), 1)
        axes.plot(bins[:-1], share, color=colour, label=_text(name))
    axes.set_xlabel("luma, 0 to 255")
    axes.set_ylabel("share of pixels")
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False)
    return _svg(figure, "Histogram of brightness: " + ", ".join(kinds))


def score_strips(scores: Mapping[str, Sequence[float]], *, label: str) -> str:
    """Every image as a dot, one row per method, with the mean as a bar."""
    figure, axes = _figure(height=0.6 + 0.35 * len(scores))
    for row, values in enumerate(scores.values()):
        axes.plot(values, [row] * len(values), "o", color=_COLOURS[0], alpha=0.45, markersize=5)
        axes.plot([float(np.mean(values))] * 2, [row - 0.3, row + 0.3], color=_COLOURS[1], lw=2)
    axes.set_yticks(range(len(scores)), [_text(name) for name in scores])
    axes.invert_yaxis()
    axes.set_xlabel(_text(label))
    return _svg(figure, f"{label} of every image by method")


def stacked_bars(rows: Mapping[str, Mapping[str, float]], *, label: str) -> str:
    """One bar per row, of its parts from left to right; all rows have the same parts."""
    figure, axes = _figure(height=1.0 + 0.32 * len(rows))
    starts = np.zeros(len(rows))
    for colour, part in zip(_PARTS, next(iter(rows.values())), strict=False):
        widths = np.array([row[part] for row in rows.values()])
        axes.barh(range(len(rows)), widths, left=starts, color=colour, label=_text(part))
        starts += widths
    axes.set_yticks(range(len(rows)), [_text(name) for name in rows])
    axes.invert_yaxis()
    axes.set_xlabel(_text(label))
    figure.legend(loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    return _svg(figure, f"{label} by part: " + ", ".join(rows))


def differences(values: Sequence[float], *, label: str) -> str:
    """One bar per image, in the given order; those below zero in another colour."""
    figure, axes = _figure(height=2.4)
    colours = [_COLOURS[0] if value >= 0 else _COLOURS[1] for value in values]
    axes.bar(range(1, len(values) + 1), values, color=colours, width=0.8)
    axes.axhline(0, color=_GREY, lw=1)
    axes.set_xlabel("images, by difference")
    axes.set_ylabel(_text(label))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return _svg(figure, f"{label}, one bar per image")


@dataclass(frozen=True)
class CostPoint:
    """A configuration in :func:`quality_against_cost`."""

    cost: float
    quality: float
    name: str
    on_front: bool = False
    is_default: bool = False


def quality_against_cost(points: Sequence[CostPoint], *, cost: str, quality: str) -> str:
    """One dot per configuration over a logarithmic cost; those of the Pareto front joined."""
    figure, axes = _figure(height=3.4)
    others = [p for p in points if not p.on_front]
    axes.plot([p.cost for p in others], [p.quality for p in others], "o", color=_GREY, alpha=0.6)
    front = sorted((p for p in points if p.on_front), key=lambda p: p.cost)
    line = [p.cost for p in front], [p.quality for p in front]
    axes.plot(*line, color=_COLOURS[0], marker="o", drawstyle="steps-post", label="Pareto front")
    for point in front:
        axes.annotate(
            _text(point.name),
            (point.cost, point.quality),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=8,
        )
    default = [p for p in points if p.is_default]
    axes.plot(
        [p.cost for p in default],
        [p.quality for p in default],
        "s",
        color=_COLOURS[1],
        label="default",
        markersize=7,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel(_text(cost))
    axes.set_ylabel(_text(quality))
    axes.legend(frameon=False)
    return _svg(figure, f"{quality} against {cost}, one dot per configuration")


def _lines(
    epochs: Sequence[int], series: Mapping[str, Sequence[float | None]], *, label: str
) -> str:
    figure, axes = _figure()
    for colour, (name, values) in zip(_COLOURS, series.items(), strict=False):
        given = [(e, v) for e, v in zip(epochs, values, strict=True) if v is not None]
        if given:
            axes.plot(*zip(*given, strict=True), color=colour, label=_text(name), marker=".")
    axes.set_xlabel("epoch")
    axes.set_ylabel(_text(label))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _svg(figure, f"{label} over epochs: " + ", ".join(series))


def _text(label: str) -> str:
    """A label with names of others in it: no control characters, and no mathematics of TeX."""
    return shown(label).replace("$", r"\$")


def _figure(*, height: float = 2.8) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(_GREY)
    axes.tick_params(colors=_GREY, labelsize=8)
    axes.xaxis.label.set(color=_GREY, size=9)
    axes.yaxis.label.set(color=_GREY, size=9)
    axes.grid(axis="both", color=_GREY, alpha=0.15)
    return figure, axes


def _svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element with text as text, and a description for screen readers."""
    buffer = io.StringIO()
    # ids must not collide within one page: referenced ones are salted, those of groups removed
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description, "font.size": 9}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    svg = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    label = shown(description).replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
