"""Evaluation and promotion as stages, on planted models: what each does to an image is known."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from mirnet import stages
from mirnet.config import Settings
from mirnet.params import load_params
from mirnet.results import EvaluationResult, PromotionResult, TrainResult
from mirnet.stages import evaluating
from mirnet.tracking import connect, logged_models, packaging, registry, track, trust
from mirnet.tracking.outbox import deliver_all
from tests import made_results
from tests.cli.commands import run
from tests.evaluation.images import dark_pairs
from tests.mlflow_server import mlflow_server
from tests.small_models import make_model

Pixels = NDArray[np.uint8]
# what a model makes of the image that it should give
Quirk = Callable[[NDArray[np.float64]], NDArray[np.float64]]
FAST = ("evaluate.bootstrap_samples=300", "promote.max_colour_cast=12", "evaluate.split=eval15")


@dataclass
class Site:
    """Data, and what the planted models are to do, by the name of their folder."""

    data: Path
    root: Path
    settings: Settings
    quirks: dict[str, Quirk] = field(default_factory=dict)

    @property
    def run(self) -> stages.RunConfig:
        return stages.RunConfig(load_params("demo", overrides=FAST), self.settings)

    def train(self, name: str, quirk: Quirk, *, seed: int) -> TrainResult:
        """A model of these random weights whose folder has this name."""
        self.quirks[name] = quirk
        folder = make_model(self.root / name, seed=seed)
        with track(self.settings, purpose="train", name=name) as tracked:
            tracked.log_params(self.run.params)
        model_id = logged_models.log_model(folder, run_id=tracked.run_id, settings=self.settings)
        assert model_id
        return made_results.trained(tracked.run_id, folder)

    def decide(self, trained: TrainResult) -> tuple[EvaluationResult, PromotionResult]:
        evaluation = stages.evaluate(self.data, self.run, trained=trained)
        return evaluation, stages.promote(self.run, trained=trained, evaluation=evaluation)


@pytest.fixture(scope="module")
def lol(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lol") / "data"
    for number, (_, low, high) in enumerate(dark_pairs(12, side=64)):
        split = "eval15" if number < 8 else "our485"
        for kind, pixels in (("low", low), ("high", high)):
            folder = root / split / kind
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def site(
    lol: Path,
    empty_store: Path,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Site:
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    here = Site(lol, tmp_path / "models", settings)
    answers = {low.tobytes(): high for _, low, high in dark_pairs(12, side=64)}

    def load(folder: Path, _run: stages.RunConfig) -> Callable[[Pixels], Pixels]:
        # the registry keeps a copy of the folder; its weights say which one it was
        digest = logged_models.weights_digest(folder)
        quirk = next(
            quirk
            for name, quirk in here.quirks.items()
            if logged_models.weights_digest(here.root / name) == digest
        )

        def enhance(pixels: Pixels) -> Pixels:
            ideal = answers.get(pixels.tobytes(), pixels).astype(np.float64)
            return np.clip(np.rint(quirk(ideal)), 0, 255).astype(np.uint8)

        return enhance

    def package(model_dir: Path, target: Path, *, mlflow_model: object = None) -> Path:
        shutil.copytree(model_dir, target / trust.NATIVE)
        return target

    monkeypatch.setattr(evaluating, "load_enhancer", load)
    # export and proof have tests of their own and take seconds
    monkeypatch.setattr(packaging, "write_package", package)
    monkeypatch.setattr(packaging, "verify_package", lambda _: None)
    return here


def mediocre(ideal: NDArray[np.float64]) -> NDArray[np.float64]:
    return ideal + 14


def good(ideal: NDArray[np.float64]) -> NDArray[np.float64]:
    return ideal + 4


def tags_of(site: Site, result: PromotionResult) -> dict[str, str]:
    reference = f"models:/{result.name}/{result.version}"
    return dict(registry.get_version(reference, site.settings).tags)


def champion_of(site: Site) -> str | None:
    current = stages.champion(site.run)
    return current.ref.version if current else None


def test_a_better_model_takes_over_and_everybody_can_see_why(site: Site) -> None:
    first, decided = site.decide(site.train("first", mediocre, seed=1))
    assert decided.alias == "champion" and champion_of(site) == "1"
    evaluation, decided = site.decide(site.train("second", good, seed=2))
    assert decided.promoted and champion_of(site) == "2"

    assert set(evaluation.methods) >= {"input", "autocontrast", "clahe", "mirnet", "champion"}
    gain = evaluation.methods["champion"].gain
    assert gain is not None and gain[1] > 0
    assert "surely better than the champion" in tags_of(site, decided)["mirnet.gate_reasons"]
    page = Path(evaluation.report_path or "").read_text(encoding="utf-8")
    assert "mirnet version 2 is champion" in page and "passed, champion: is surely better" in page

    client = connect(site.settings)
    scored = client.get_run(str(evaluation.run_id))
    assert scored.data.tags["mirnet.gate"] == "promote"
    assert scored.data.tags["mirnet.training_run"] == decided.run_id
    assert scored.data.metrics["eval/gain_over_champion_low"] == pytest.approx(gain[1])
    model_id = str(registry.get_version("models:/mirnet/2", site.settings).model_id)
    assert [m.model_id for m in scored.inputs.model_inputs] == [model_id]
    bound = {m.key: m.dataset_digest for m in client.get_logged_model(model_id).metrics}
    assert bound["eval/psnr"] == evaluation.digest
    experiment = client.get_run(str(first.run_id)).info.experiment_id
    runs = client.search_runs([experiment])
    names = {r.data.tags["mirnet.method"] for r in runs if r.info.status == "FINISHED"}
    assert names == set(evaluation.methods)
    # two candidates; each baseline and the champion went on with one run
    assert len(runs) == len(evaluation.methods) + 1
    logged = client.download_artifacts(str(evaluation.run_id), "index.html", str(site.root))
    assert "mirnet version 2 is champion" in Path(logged).read_text(encoding="utf-8")


def test_equal_models_never_take_over(site: Site) -> None:
    site.decide(site.train("first", mediocre, seed=1))
    _, same = site.decide(site.train("again", mediocre, seed=1))
    assert (same.promoted, same.alias) == (False, "champion")
    assert same.reasons == ("these weights are the champion already",)
    _, equal = site.decide(site.train("other", mediocre, seed=3))
    assert equal.alias is None and champion_of(site) == "1"
    assert equal.reasons == (
        "is not surely better than the champion: gain of brightness-aligned PSNR +0.00 dB "
        "(+0.00 to +0.00)",
    )
    assert tags_of(site, equal)["mirnet.gate"] == "refuse"


@pytest.mark.parametrize(
    ("quirk", "reason"),
    [
        (lambda ideal: ideal * 1.5 + 40, "of the pixels clipped beyond the reference's"),
        (lambda ideal: ideal * [1.25, 1.0, 0.7], "mean colour cast"),
        (lambda ideal: ideal * 0.5, "of the reference's brightness"),
    ],
    ids=["clipping", "colour-cast", "darkening"],
)
def test_a_harmful_model_is_refused_for_its_harm(site: Site, quirk: Quirk, reason: str) -> None:
    evaluation, decided = site.decide(site.train("harmful", quirk, seed=1))
    assert decided.alias is None and champion_of(site) is None
    assert len(decided.reasons) == 1 and reason in decided.reasons[0]
    tags = tags_of(site, decided)
    assert tags["mirnet.gate"] == "refuse" and reason in tags["mirnet.gate_reasons"]
    page = Path(evaluation.report_path or "").read_text(encoding="utf-8")
    assert "Refused</strong>: mirnet version 1 stays without an alias" in page


def test_a_baseline_alone_has_its_own_page(site: Site) -> None:
    result = stages.evaluate(site.data, site.run, model="baseline:gamma")
    assert result.methods["gamma"].gain is None
    assert result.methods["clahe"].gain is not None
    assert result.run_id == result.methods["gamma"].run_id
    page = Path(result.report_path or "").read_text(encoding="utf-8")
    assert re.search("<title>baseline:gamma: 8 dark images of eval15, [0-9.]+ dB</title>", page)


def test_mlflow_dies_while_pictures_are_scored(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed; the evaluation ends, and all is delivered once it is back."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = f"sqlite:///{tmp_path / 'server.db'}"
    with mlflow_server(store, tmp_path) as server:
        site.settings = site.settings.model_copy(update={"tracking_uri": server.address})

        def deadly(ideal: NDArray[np.float64]) -> NDArray[np.float64]:
            server.stop(signal.SIGKILL)
            return good(ideal)

        trained = site.train("deadly", deadly, seed=1)
        result = stages.evaluate(site.data, site.run, trained=trained)
        assert len(pd.read_parquet(result.scores_path)) == 8 * len(result.methods)
        waiting = sorted((site.settings.workspace / "pending").glob("*.jsonl"))
        assert len(waiting) == len(result.methods)

        server.start()
        deliver_all(server.address, site.settings.workspace / "pending")
        client = connect(site.settings)
        for method in result.methods.values():
            found = client.get_run(str(method.run_id))
            assert found.info.status == "FINISHED"
            assert found.data.metrics["eval/psnr"] == pytest.approx(method.psnr)
        artifacts = {a.path for a in client.list_artifacts(str(result.run_id))}
        assert {"index.html", "scores.json", "images"} <= artifacts
        assert not list((site.settings.workspace / "pending").iterdir())
        assert result.report_url == (
            f"{server.address}/#/experiments/{found.info.experiment_id}"
            f"/runs/{result.run_id}/artifacts/index.html"
        )


def test_a_model_from_elsewhere_needs_no_training_but_its_evaluation(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, quirk in (("published", good), ("other", mediocre)):
        site.quirks[name] = quirk
        make_model(site.root / name, seed=len(name))
    folder = site.root / "published"
    evaluation = stages.evaluate(site.data, site.run, model=str(folder))
    monkeypatch.setenv("MIRNET_WORKSPACE", str(site.settings.workspace))
    monkeypatch.setenv("MIRNET_REPORTS_DIR", str(site.settings.reports_dir))
    options = ["--params", "demo", *(word for each in FAST for word in ("--set", each))]
    assert run(monkeypatch, "registry", "add", str(site.root / "other"), *options) == 2
    assert "with other weights than" in capsys.readouterr().err
    assert run(monkeypatch, "registry", "add", str(site.root / "none"), *options) == 2
    assert not registry.list_versions("mirnet", site.settings)

    assert run(monkeypatch, "registry", "add", str(folder), *options, "--json") == 0
    added = PromotionResult.model_validate_json(capsys.readouterr().out)
    assert (added.alias, added.run_id) == ("champion", evaluation.run_id)
    version = registry.get_version("models:/mirnet@champion", site.settings)
    assert version.signed and registry.DATA_TAG not in version.tags
    assert version.tags["mirnet.origin"] == "not trained here"
    described = connect(site.settings).get_model_version("mirnet", version.version).description
    assert "Not trained here: the training data are not recorded" in described
    assert "| **this model** |" in described and "## Licence" in described
    assert run(monkeypatch, "registry", "verify") == 0

    refused = ["--set", "promote.min_gain_db=90", "--report"]
    report = str(site.settings.reports_dir / "evaluate.json")
    stages.evaluate(site.data, site.run, model=str(site.root / "other"))
    words = ("registry", "add", str(site.root / "other"), *options, *refused, report)
    assert run(monkeypatch, *words) == 3
    assert registry.get_version("models:/mirnet@champion", site.settings).version == "1"


def test_a_folder_or_report_that_is_wrong_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model").mkdir()
    (tmp_path / "rep.json").write_text("{}")
    said = {
        ("nofolder",): "nofolder: no such model folder",
        ("model", "--report", "nope.json"): "nope.json is missing: run `mirnet evaluate` first",
        ("model", "--report", "rep.json"): "rep.json is not a result of `mirnet evaluate`: model: "
        "Field required",
    }
    for words, why in said.items():
        assert run(monkeypatch, "registry", "add", *words, "--params", "demo") == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith(f"mirnet: {why}")
