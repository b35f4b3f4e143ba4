"""``mirnet reproduce``: differences and verdicts, with trainings that end at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirnet.config import Settings
from mirnet.data.versioning import data_version
from mirnet.params import load_params
from mirnet.results import DataVersion, TrainResult
from mirnet.stages import RunConfig, reproducing
from mirnet.stages.run import run_tags, training_tags
from mirnet.tracking import track
from mirnet.tracking.recorded import RecordedTraining
from mirnet.tracking.runs import attach
from mirnet.tracking.versions import get_version, list_versions
from tests.cli.commands import run as command
from tests.small_models import make_model

# versions 2 and 3 have weights that none of their seeds gives here
SEEDS = {1: 1, 2: 4, 3: 4}
PSNR = {1: 19.0, 4: 19.4, 5: 18.8, 6: 19.1}
Reproduce = Callable[..., dict[str, Any]]


@pytest.fixture
def reproduce(
    versions: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Reproduce:
    """Versions 1 to 3 have a recipe; a training with a seed gives the weights of that seed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MIRNET_WORKSPACE", str(versions.workspace))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(versions.reports_dir))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "1.png").write_bytes(b"pixels")
    (tmp_path / "vgg.pth").write_bytes(b"weights")
    version = data_version(Path("data"))
    for number in (1, 2, 3):
        overrides = [f"train.seed={SEEDS[number]}"]
        if number == 2:
            overrides += ["train.loss={l1: 1, perceptual: 0.1}", "train.perceptual_weights=vgg.pth"]
        params = load_params("cpu-mirnet", overrides=tuple(overrides))
        run = RunConfig(params, versions)
        run_id = get_version(f"models:/mirnet/{number}", versions).run_id
        assert run_id is not None
        recorded = attach(run_id, versions)
        recorded.log_params(params)
        recorded.set_tags(run_tags(run, version) | training_tags(run))
        recorded.log_metrics({"val/best_psnr": 19.0 if number < 3 else 25.0})

    def train(
        _: Path,
        run: RunConfig,
        *,
        version: DataVersion,
        model_dir: Path,
        run_name: str,
        tags: dict[str, str],
        progress: Callable[[Any], None],
    ) -> TrainResult:
        seed = run.params.train.seed
        with track(run.settings, purpose="train", name=run_name, tags=tags) as tracked:
            make_model(model_dir, seed=seed)
        return TrainResult(
            run_id=tracked.run_id,
            model_dir=str(model_dir),
            model_name="mirnet-xs",
            num_parameters=1,
            digest=version.digest,
            best_epoch=0,
            best_val_psnr=PSNR[seed],
            history=(),
            num_workers=1,
            seconds=0.1,
        )

    monkeypatch.setattr(reproducing, "train", train)

    def run_command(number: int, *words: str, code: int) -> dict[str, Any]:
        words = ("reproduce", f"models:/mirnet/{number}", "--json", *words)
        assert command(monkeypatch, *words) == code
        said = capsys.readouterr()
        return json.loads(said.out) if said.out else {"error": said.err}

    return run_command


def test_the_same_weights_need_one_seed(reproduce: Reproduce, versions: Settings) -> None:
    before = list_versions("mirnet", versions)
    result = reproduce(1, code=0)
    assert (result["reproduced"], result["bit_equal"], len(result["seeds"])) == (True, True, 1)
    assert (result["deviations"], result["split"], result["psnr"]) == ([], "val", 19.0)
    assert list_versions("mirnet", versions) == before
    saved = versions.reports_dir / "reproduce" / "mirnet-1" / "reproduce.json"
    assert json.loads(saved.read_text()) == result


def test_other_weights_are_judged_by_the_spread_of_seeds(reproduce: Reproduce) -> None:
    alone = reproduce(3, "--seeds", "1", code=3)
    assert (alone["reproduced"], alone["interval"]) == (None, None)
    assert "not judged" in alone["verdict"] and "-5.600 dB" in alone["verdict"]
    far = reproduce(3, "--seeds", "3", code=3)
    assert far["reproduced"] is False and far["interval"][1] < 25.0
    assert [seed["seed"] for seed in far["seeds"]] == [4, 5, 6]
    near = reproduce(2, code=0)
    low, high = near["interval"]
    assert near["reproduced"] and not near["bit_equal"] and low < 19.0 < high


def test_other_code_data_or_params_are_named_and_refused(
    reproduce: Reproduce, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("data/2.png").write_bytes(b"more")
    refused = reproduce(1, code=2)["error"]
    assert "cannot be reproduced here: data: " in refused and "--anyway" in refused
    assert reproduce(1, "--anyway", code=0)["deviations"][0]["name"] == "data"

    Path("data/2.png").unlink()
    monkeypatch.setenv("MIRNET_NUM_WORKERS", "3")
    (other,) = reproduce(1, code=0)["deviations"]
    assert (other["name"], other["here"], other["decisive"]) == ("workers", "3", False)


def test_other_weights_of_the_perceptual_term_are_named_and_refused(reproduce: Reproduce) -> None:
    for change in (lambda path: path.write_bytes(b"others"), Path.unlink):
        change(Path("vgg.pth"))
        refused = reproduce(2, code=2)["error"]
        assert "reproduced here: weights of the perceptual term: " in refused
    assert "none here" in refused


def test_params_that_do_not_come_back_as_recorded_are_named() -> None:
    params = load_params("cpu-mirnet", overrides=("train.num_epochs=40",))
    logged = {key: str(value) for key, value in params.flat().items()} | {"train.num_epochs": "4"}
    del logged["train.lr"]
    training = RecordedTraining("id", "name", params, logged, tags={}, metrics={})
    found = {d.name: (d.recorded, d.decisive) for d in reproducing._changed_params(training)}
    assert found == {"train.num_epochs": ("4", True), "train.lr": (None, False)}
