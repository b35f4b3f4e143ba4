"""``mirnet reproduce``: a version that was trained, scored and registered, trained again.

tests/cli/test_reproduce.py has the verdicts without training.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from mirnet import stages
from mirnet.config import Settings
from mirnet.data.versioning import data_version
from mirnet.errors import UsageError
from mirnet.params import Params, load_params, params_of_run
from mirnet.results import ValidationResult
from mirnet.stages import RunConfig
from mirnet.tracking.queries import list_runs
from mirnet.tracking.versions import list_versions
from tests.cli.commands import run as command
from tests.evaluation.images import dark_pairs

RECIPE = (
    *("model.n_feat=8", "train.num_epochs=1", "train.steps_per_epoch=2", "train.batch_size=2"),
    *("train.patch_size=32", "train.precision=float32", "train.compile=false", "train.seed=4"),
    *("train.progressive=[]", "train.samples_every=null", "enhance.precision=float32"),
    *("evaluate.baselines=[input,autocontrast]", "evaluate.bootstrap_samples=100"),
)


@pytest.fixture(scope="module")
def trained(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Version 1 of ``mirnet``, in a git repository, which is the working directory."""
    root = tmp_path_factory.mktemp("trained")
    settings = Settings(
        workspace=root / "workspace", reports_dir=root / "reports", ray_address="in-process"
    )
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    for pair_id, low, high in dark_pairs(6, side=64):
        name = Path(pair_id).name
        for split, step in (("eval15", 1), ("our485", -1)):  # mirrored: no image is in both
            for side, pixels in (("low", low), ("high", high)):
                path = root / "data" / split / side / name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels[::step]).save(path)
    (root / "code.py").write_text("1")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        git = ("git", "-c", "user.name=a", "-c", "user.email=a@b")
        for words in (["init", "-q"], ["add", "code.py"], ["commit", "-qm", "code"]):
            subprocess.run([*git, *words], check=True)
        run = RunConfig(load_params("cpu-mirnet", overrides=RECIPE), settings)
        version = data_version(Path("data"))
        # the images are smaller than the data gate allows
        passed = ValidationResult(version=version, num_pairs={"our485": 6}, passed=True)
        for folder in (settings.reports_dir, settings.reports_dir / "reproduce" / "mirnet-1"):
            passed.save(folder / "validate.json")
        result = stages.train(
            Path("data"), run, version=version, model_dir=root / "model", run_name="first"
        )
        evaluation = stages.evaluate(Path("data"), run, trained=result)
        stages.promote(run, trained=result, evaluation=evaluation)
        yield settings


def reproduce(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *words: str, version: str = "1"
) -> int:
    monkeypatch.setenv("MIRNET_WORKSPACE", str(settings.workspace))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(settings.reports_dir))
    monkeypatch.setenv("MIRNET_RAY_ADDRESS", "in-process")
    return command(monkeypatch, "reproduce", f"models:/mirnet/{version}", *words)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.slow
def test_the_same_weights(
    trained: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, (version,) = files(trained.reports_dir), list_versions("mirnet", trained)
    evaluations = list_runs(trained, purpose="evaluate")
    assert reproduce(trained, monkeypatch, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["reproduced"], result["bit_equal"], result["deviations"]) == (True, True, [])
    (seed,) = result["seeds"]
    assert seed["seed"] == 4, "one seed is enough if it gives the same weights"
    assert seed["psnr"] == pytest.approx(result["psnr"], abs=1e-6)

    newest, original = list_runs(trained, purpose="train")
    assert newest.run_id == seed["run_id"] and newest.params == original.params
    assert newest.tags["mirnet.reproduces"] == "models:/mirnet/1"
    assert original.tags["mirnet.git_changes"] == "none" and original.tags["mirnet.hardware"]
    assert list_versions("mirnet", trained) == [version], "nothing is registered or moved"
    assert list_runs(trained, purpose="evaluate") == evaluations
    assert files(trained.reports_dir) == before
    saved = trained.reports_dir / "reproduce" / "mirnet-1" / "reproduce.json"
    assert json.loads(saved.read_text()) == result


@pytest.mark.slow
def test_other_code_is_named_before_anything_is_trained(
    trained: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count = len(list_runs(trained))
    Path("code.py").write_text("2")
    try:
        assert reproduce(trained, monkeypatch) == 2
    finally:
        Path("code.py").write_text("1")
    told = capsys.readouterr().err
    assert "uncommitted changes: none recorded, 1 (sha256 " in told and "): code.py here" in told
    assert "commit:" not in told and "data:" not in told
    assert reproduce(trained, monkeypatch, version="9") == 2
    assert len(list_runs(trained)) == count


@pytest.mark.slow
def test_other_data_are_judged_by_the_spread_of_seeds(
    trained: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree("data", "other")
    for low in Path("other/our485/low").iterdir():
        Image.open(low).point(lambda value: 255 - value).save(low)
    version = data_version(Path("other"))
    passed = ValidationResult(version=version, num_pairs={"our485": 6}, passed=True)
    passed.save(trained.reports_dir / "reproduce" / "mirnet-1" / "validate.json")

    assert reproduce(trained, monkeypatch, "--data", "other") == 2
    assert f"{version.digest} here" in capsys.readouterr().err
    other = ("--data", "other", "--anyway", "--json")
    assert reproduce(trained, monkeypatch, *other, "--seeds", "1") == 3
    one = json.loads(capsys.readouterr().out)
    assert (one["reproduced"], one["interval"], one["bit_equal"]) == (None, None, False)
    assert one["verdict"].startswith("mirnet version 1: not judged")

    code = reproduce(trained, monkeypatch, *other, "--seeds", "2")
    two = json.loads(capsys.readouterr().out)
    assert [seed["seed"] for seed in two["seeds"]] == [4, 5]
    low, high = two["interval"]
    assert two["reproduced"] == (low <= two["psnr"] <= high) == (code == 0)
    assert [d["name"] for d in two["deviations"]] == ["data"]


def test_params_come_back_from_mlflow_as_they_were() -> None:
    for preset in ("cpu", "demo", "paper"):
        overrides = ("train.loss={l1: 1.0, ssim: 0.1}", "train.init_from=models:/mirnet@champion")
        params = load_params(preset, overrides=overrides)
        logged = {key: str(value) for key, value in params.flat().items()}
        assert params_of_run(logged) == params
    logged |= {"train.unheard_of": "1"}
    with pytest.raises(UsageError, match=r"unknown parameter train\.unheard_of"):
        params_of_run(logged)


def test_the_artifact_of_a_run_is_what_params_take(tmp_path: Path) -> None:
    from mirnet.tracking.recorded import params_text

    params = load_params("paper", overrides=("train.seed=7", "validate.accept=[leak-exact]"))
    (tmp_path / "params.yaml").write_text(params_text(params))
    assert load_params(tmp_path / "params.yaml") == params
    assert params_of_run({}) == Params()
