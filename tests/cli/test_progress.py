"""What a person sees while training runs."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mirnet.cli import show
from mirnet.results import EpochMetrics


def _epoch(number: int, val_psnr: float | None) -> EpochMetrics:
    return EpochMetrics(
        epoch=number,
        step=10 * (number + 1),
        lr=1e-3,
        train_loss=0.125,
        train_psnr=17.0,
        val_psnr=val_psnr,
        patches_per_s=12.34,
        seconds=20.0,
    )


def test_an_epoch_in_one_line_has_what_is_left():
    line = _epoch(2, 18.5).describe(5)
    assert line == ("epoch 3/5: loss 0.1250, validation 18.50 dB, 12.3 patches/s, about 40 s left")
    assert "not validated" in _epoch(2, None).describe(5)


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_keeps_the_best_and_is_silent_without_a_terminal(monkeypatch, terminal):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(show, "console", console)
    with show.training_progress(4) as progress:
        progress(_epoch(0, 18.0))
        progress(_epoch(1, None))
        progress(_epoch(2, 17.0))
    text = written.getvalue()
    assert ("3/4" in text and "best 18.00 dB, 12.3 patches/s" in text) is terminal
    assert bool(text.strip()) is terminal
