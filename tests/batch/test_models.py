"""Another model: new weights under an old name, a champion that changes in the middle of a run."""

from __future__ import annotations

import io
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mirnet import stages
from mirnet.batch.ledger import Ledger
from mirnet.batch.provenance import trace
from mirnet.batch.run import run_batch
from mirnet.config import Settings
from mirnet.errors import WeightsError
from mirnet.images import decode
from mirnet.params import EnhanceParams, load_params
from mirnet.results import EnhanceResult, ModelRef
from mirnet.stages.enhancing import load_anywhere
from mirnet.stages.models import open_model
from mirnet.storage.places import open_store
from mirnet.tracking import aliases, registry, track
from tests.batch.samples import MODEL, UNGUARDED, double, fill, picture
from tests.small_models import make_model

PICTURES = {f"{number}.png": picture(number) for number in range(3)}
UNGUARDED_SET = [f"enhance.{name}=null" for name in UNGUARDED]
FOLDER = ModelRef("model", weights_digest="a" * 64)


def enhance(
    places: tuple[str, str], settings: Settings, model: ModelRef, function: object = double
) -> EnhanceResult:
    params = EnhanceParams(on_new_model="redo", contact_images=0)
    return run_batch(*places, enhance=function, model=model, params=params, settings=settings)


def test_new_weights_in_a_folder_of_the_same_name_are_another_model(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES)
    enhance(places, settings, FOLDER)
    assert enhance(places, settings, FOLDER).skipped == 3
    newer = replace(FOLDER, weights_digest="b" * 64)
    assert newer.label != FOLDER.label
    assert enhance(places, settings, newer).enhanced == 3
    assert trace(f"{places[1]}/0.png", settings).row.weights_digest == newer.weights_digest
    # the same without a row, as after a kill
    store = open_store(places[1], settings)
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    untouched = enhance(places, settings, newer, lambda _: pytest.fail("enhanced twice"))
    assert untouched.enhanced == 3, "adopted"
    for info in list(store.list("_mirnet/runs/")):
        store.delete(info.key)
    assert enhance(places, settings, FOLDER).enhanced == 3
    assert trace(f"{places[1]}/0.png", settings).row.weights_digest == FOLDER.weights_digest


def test_a_version_of_another_registry_is_another_model(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES)
    enhance(places, settings, replace(MODEL, weights_digest="a" * 64))
    assert enhance(places, settings, replace(MODEL, weights_digest="b" * 64)).enhanced == 3


def test_manifests_from_before_the_digest_still_count(
    places: tuple[str, str], settings: Settings
) -> None:
    fill(places[0], PICTURES)
    enhance(places, settings, MODEL)
    store = open_store(places[1], settings)
    (info,) = [i for i in store.list("_mirnet/runs/") if i.key.endswith("manifest.parquet")]
    table = pq.read_table(io.BytesIO(store.get(info.key).data)).drop(["weights_digest"])
    old = io.BytesIO()
    pq.write_table(table, old)
    store.put(info.key, old.getvalue())
    assert enhance(places, settings, replace(MODEL, weights_digest="a" * 64)).skipped == 3


@pytest.fixture(scope="module")
def registered(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> stages.RunConfig:
    """A registry with two versions of a small network, the first one champion."""
    root = tmp_path_factory.mktemp("registered")
    settings = Settings(workspace=root / "workspace", reports_dir=root / "reports", compile=False)
    settings.workspace.mkdir()
    shutil.copy(empty_store, settings.workspace / "mlflow.db")
    params = load_params("demo", overrides=("enhance.contact_images=0", *UNGUARDED_SET))
    for seed in (1, 2):
        folder = make_model(root / f"{seed}", seed=seed)
        with track(settings, purpose="train", name=f"{seed}", key=f"{seed}") as tracked:
            pass
        registry.register(folder, name="mirnet", run_id=tracked.run_id, settings=settings)
    first = registry.get_version("models:/mirnet/1", settings)
    aliases.promote(first, why="test", settings=settings)
    return stages.RunConfig(params, settings)


@pytest.fixture
def run(registered: stages.RunConfig, tmp_path: Path) -> stages.RunConfig:
    """The same registry in a database of the test's own; its artifacts are shared."""
    settings = registered.settings.model_copy(
        update={"workspace": tmp_path / "workspace", "reports_dir": tmp_path / "reports"}
    )
    settings.workspace.mkdir()
    shutil.copy(registered.settings.workspace / "mlflow.db", settings.workspace / "mlflow.db")
    return stages.RunConfig(registered.params, settings)


def test_a_champion_promoted_in_the_middle_waits_for_the_next_run(
    run: stages.RunConfig, places: tuple[str, str]
) -> None:
    fill(places[0], PICTURES)
    second = registry.get_version("models:/mirnet/2", run.settings)

    def progress(done: int, _todo: int) -> None:
        if done == 1:
            aliases.promote(second, why="test", settings=run.settings)

    def rows() -> dict[str, tuple[str | None, str | None]]:
        records = open_store(places[1], run.settings).child("_mirnet")
        return {
            r.input_key: (r.model_version, r.weights_digest)
            for r in Ledger(records).past_runs().rows()
        }

    stages.enhance(*places, run, progress=progress)
    first = registry.get_version("models:/mirnet/1", run.settings)
    assert stages.champion(run).ref.version == "2"
    assert set(rows().values()) == {("1", first.weights_digest)}
    before = {key: open_store(places[1], run.settings).get(key).data for key in PICTURES}

    kept = stages.enhance(*places, run)
    assert (kept.model_version, kept.skipped, kept.enhanced) == ("2", 3, 0)

    redo = load_params("demo", overrides=("enhance.on_new_model=redo", *UNGUARDED_SET))
    redone = stages.enhance(*places, stages.RunConfig(redo, run.settings))
    assert (redone.model_version, redone.enhanced) == ("2", 3)
    assert set(rows().values()) == {("2", second.weights_digest)}
    after = {key: open_store(places[1], run.settings).get(key).data for key in PICTURES}
    assert all(before[key] != after[key] for key in PICTURES)


def test_a_machine_without_the_folder_gets_the_version_and_never_other_weights(
    run: stages.RunConfig, registered: stages.RunConfig, tmp_path: Path
) -> None:
    """What an actor on another host does."""
    opened = open_model("models:/mirnet/1", run)
    image = decode(picture(1), name="a")
    expected = load_anywhere(opened, run).enhance_image(image).pixels
    elsewhere = replace(opened, folder=tmp_path / "only-on-the-driver")
    assert (load_anywhere(elsewhere, run).enhance_image(image).pixels == expected).all()
    with pytest.raises(WeightsError, match="changed since the run began"):
        load_anywhere(replace(opened, folder=registered.settings.workspace.parent / "2"), run)
