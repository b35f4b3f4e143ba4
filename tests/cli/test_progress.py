"""What a person sees while training runs."""

from __future__ import annotations

import inspect
import io
import threading
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from mirnet.cli import progress, runs, show
from mirnet.data.manifest import build_manifest
from mirnet.evaluation.scoring import score_pairs
from mirnet.params import EvaluateParams
from mirnet.results import EpochMetrics
from tests.batch.samples import fill, picture
from tests.cli.commands import leaves


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


EPOCHS = ["epoch 1/4", "epoch 2/4", "epoch 3/4"]


@pytest.mark.parametrize("terminal", [True, False])
def test_the_bar_keeps_the_best_and_without_a_terminal_each_epoch_is_a_line(
    monkeypatch, terminal, capsys
):
    written = io.StringIO()
    console = Console(file=written, force_terminal=terminal, width=120, color_system=None)
    monkeypatch.setattr(show, "errors", console)
    with show.training_progress(4) as progress:
        progress(_epoch(0, 18.0))
        progress(_epoch(1, None))
        progress(_epoch(2, 17.0))
    text = written.getvalue()
    assert ("3/4" in text and "best 18.00 dB, 12.3 patches/s" in text) is terminal
    assert bool(text.strip()) is terminal
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ([] if terminal else EPOCHS)


def test_on_a_terminal_a_bar_on_standard_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.errors, "_force_terminal", True)
    monkeypatch.setattr(progress.errors, "_width", 100)
    clock = iter(range(1000))
    monkeypatch.setattr(progress.errors, "get_time", lambda: float(next(clock)))
    with progress.progress("scoring [1]", "images") as count:
        count(1, 4)
        count(3, 4)
    out, err = capsys.readouterr()
    assert not out
    assert all(text in err for text in ("scoring [1]", "3/4", "images/s"))


def test_without_a_terminal_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0.0, 4.0, 12.0, 13.0, 25.0])
    monkeypatch.setattr("mirnet.cli.progress.time.monotonic", lambda: next(seconds))
    with progress.progress("scoring", "images") as count:
        for done in (1, 3, 4):
            count(done, 8)
        count(1, 1)
    assert capsys.readouterr() == ("", "scoring: 3 of 8 images, about 20 s left\n")


def test_what_counts_nothing_says_how_long_it_takes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = threading.Event()
    monkeypatch.setattr(progress, "LINE_EVERY_S", 0.001)

    def note(text: str) -> None:
        print(text)
        told.set()

    monkeypatch.setattr(progress, "note", note)
    with progress.progress("promoting"):
        assert told.wait(30)
    assert capsys.readouterr().out.startswith("promoting: 0 s\n")


def test_stages_count_their_pairs(
    tmp_path: Path,
) -> None:
    for side in ("low", "high"):
        fill(str(tmp_path / "data" / "our485" / side), {f"{n}.png": picture(n) for n in range(3)})
    counted: list[tuple[int, int]] = []
    build_manifest(tmp_path / "data", progress=lambda *count: counted.append(count))
    assert counted == [(1, 3), (2, 3), (3, 3)]
    grey = np.full((16, 16, 3), 9, np.uint8)
    pairs = [(str(n), grey, grey) for n in range(2)]
    counted.clear()
    score_pairs(
        pairs,
        {"input": lambda pixels: pixels},
        EvaluateParams(bootstrap_samples=100),
        progress=lambda *count: counted.append(count),
    )
    assert counted == [(1, 2), (2, 2)]


@pytest.mark.parametrize("done", [0, 1])
def test_one_thing_has_a_bar_until_it_is_done(
    done: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such as one large image, or all files of one version."""
    monkeypatch.setattr(progress.errors, "_force_terminal", True)
    monkeypatch.setattr(progress.errors, "_width", 100)
    with progress.progress("enhancing", "images") as count:
        count(done, 1)
        capsys.readouterr()
    told = capsys.readouterr().err
    assert ("enhancing" in told) is (done == 0) and "/1" not in told


LONG = {
    *(f"data {name}" for name in ("import", "pull", "push", "upload", "overlap", "sample")),
    *(f"registry {name}" for name in ("show", "verify", "sign", "add", "promote", "rollback")),
    *("data synthesize", "weights import", "weights export", "runs compare"),
    *("validate", "evaluate", "promote", "enhance", "reproduce", "search", "verify"),
}


def test_commands_that_take_long_show_that_they_work() -> None:
    sources = {" ".join(path): inspect.getsource(command.callback) for path, command in leaves()}
    sources["runs compare"] += inspect.getsource(runs._compare_page)
    assert sources.keys() >= LONG
    assert not [name for name in sorted(LONG) if "with progress(" not in sources[name]]
