"""``mirnet runs compare A B --html``: two registered models, runs and a baseline.

``examples/compare_runs.ipynb``: the same in a notebook.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from mirnet import stages
from mirnet.cli import runs as runs_cli
from mirnet.config import Settings
from mirnet.errors import UsageError
from mirnet.evaluation.metrics import psnr
from mirnet.params import EvaluateParams, Params
from mirnet.stages import RunConfig
from mirnet.tracking import track
from tests.evaluation.images import dark_pairs

NOTEBOOK = Path(__file__).parents[2] / "examples" / "compare_runs.ipynb"


def invoke(*words: str) -> str:
    done = CliRunner().invoke(runs_cli.app, ["compare", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def scored(three_versions: Settings, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """Versions 1 and 2 with evaluations on ``data``, a folder beside the workspace."""
    root = tmp_path_factory.mktemp("scored")
    settings = Settings(workspace=root / "workspace", reports_dir=root / "reports")
    settings.workspace.mkdir()
    shutil.copy(three_versions.workspace / "mlflow.db", settings.workspace)
    for pair_id, low, high in dark_pairs(6, side=64):
        name = Path(pair_id).name
        for side, pixels in (("low", low), ("high", high)):
            for split in ("our485", "eval15"):
                path = root / "data" / split / side / name
                path.parent.mkdir(parents=True, exist_ok=True)
                # no image of training is one of evaluation
                Image.fromarray(pixels if split == "eval15" else pixels[::-1]).save(path)
    evaluation = EvaluateParams(baselines=("autocontrast",), bootstrap_samples=200)
    run = RunConfig(Params(evaluate=evaluation), settings)
    for number in (1, 2):
        stages.evaluate(root / "data", run, model=f"models:/mirnet/{number}")
    return settings


@pytest.fixture
def data(scored: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the scored data, with the settings in the environment."""
    monkeypatch.setenv("MIRNET_WORKSPACE", str(scored.workspace))
    return Path(shutil.copytree(scored.workspace.parent / "data", tmp_path / "data"))


def test_two_models_on_one_page(scored: Settings, data: Path, tmp_path: Path) -> None:
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

    with track(scored, purpose="train", name="never scored"):
        pass
    with pytest.raises(UsageError, match="never scored: nothing"):
        invoke("seed 1", "never scored", *words)
    with pytest.raises(UsageError, match="seed 1 and mirnet version 1 are one model"):
        invoke("seed 1", "models:/mirnet/1", *words)
    with pytest.raises(UsageError, match="two models, not 1"):
        invoke("seed 1", *words)
    assert "seed 1" in invoke("models:/mirnet/1", "seed 2"), "the table knows versions too"


def cells() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    found: list[dict[str, Any]] = notebook["cells"]
    return found


def execute(**parameters: object) -> dict[str, Any]:
    """The code cells in order, with other values after the one tagged ``parameters``."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells():
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
            if "parameters" in cell["metadata"].get("tags", ()):
                assert set(parameters) <= set(names)
                names |= parameters
    return names


def test_the_notebook_is_stored_without_outputs() -> None:
    assert len({cell["id"] for cell in cells()}) == len(cells())
    code = [cell for cell in cells() if cell["cell_type"] == "code"]
    assert [(cell["outputs"], cell["execution_count"]) for cell in code] == [([], None)] * 4


@pytest.mark.filterwarnings("ignore:FigureCanvasAgg is non-interactive")
def test_the_notebook_compares_two_runs(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MPLBACKEND", "Agg")
    names = execute(FIRST="models:/mirnet/1", SECOND="seed 2", DATA=data, NUM_WORST=2)
    told = capsys.readouterr().out
    assert "mirnet version 1 minus seed 2: " in told and "6 images" in told
    plt, columns = names["plt"], names["columns"]
    assert len(plt.get_fignums()) == 2
    titles = [axis.get_title() for axis in plt.figure(2).axes]
    plt.close("all")
    assert len(titles) == 8 and titles[3] == titles[7] == "reference"

    worst = names["worst"]
    assert worst["first"].tolist() == sorted(names["found"].images["first"])[:2]
    for row, (pair_id, first, second) in enumerate(
        zip(worst["pair_id"], worst["first"], worst["second"], strict=True)
    ):
        assert titles[4 * row] == f"{pair_id}, dark"
        for column, recorded in (("first", first), ("second", second)):
            again = psnr(columns[column][row], columns["reference"][row])
            assert again == pytest.approx(recorded, abs=0.1), "the image is that of the score"
