"""``mirnet runs compare A B --html``: two registered models, runs and a baseline."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mirnet import stages
from mirnet.cli import runs as runs_cli
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.params import EvaluateParams, Params
from mirnet.stages import RunConfig
from mirnet.tracking import track
from tests.evaluation.images import dark_pairs


def invoke(*words: str) -> str:
    done = CliRunner().invoke(runs_cli.app, ["compare", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for pair_id, low, high in dark_pairs(6, side=64):
        name = Path(pair_id).name
        for side, pixels in (("low", low), ("high", high)):
            for split in ("our485", "eval15"):
                path = tmp_path / "data" / split / side / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # no image of training is one of evaluation
                Image.fromarray(pixels if split == "eval15" else pixels[::-1]).save(path)
    return tmp_path / "data"


def test_two_models_on_one_page(
    versions: Settings, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(versions.workspace))
    evaluation = EvaluateParams(baselines=("autocontrast",), bootstrap_samples=200)
    run = RunConfig(Params(evaluate=evaluation), versions)
    for number in (1, 2):
        stages.evaluate(data, run, model=f"models:/mirnet/{number}")
    target = tmp_path / "page.html"
    words = ("--html", str(target), "--data", str(data))

    told = invoke("models:/mirnet/1", "seed 2", *words)
    assert "mirnet version 1 minus seed 2 is" in told and f"page: {target}" in told
    html = target.read_text("utf-8")
    labels = re.findall(r'data-name="([^"]*)"', html)
    assert labels[:4] == ["dark input", "mirnet version 1", "seed 2", "reference"]
    assert "made again" not in html, "the images have the scores of the evaluation"

    invoke("models:/mirnet/1", "autocontrast eval15", *words)
    assert 'data-name="autocontrast eval15 ' in target.read_text("utf-8")

    (data / "our485" / "low" / "new.png").write_bytes(b"other data")
    assert "Without images" in invoke("seed 1", "seed 2", *words)
    html = target.read_text("utf-8")
    assert "<img" not in html and 'id="metrics"' in html

    with track(versions, purpose="train", name="never scored"):
        pass
    with pytest.raises(UsageError, match="never scored: nothing"):
        invoke("seed 1", "never scored", *words)
    with pytest.raises(UsageError, match="two models, not 1"):
        invoke("seed 1", *words)
    assert "seed 1" in invoke("models:/mirnet/1", "seed 2"), "the table knows versions too"
