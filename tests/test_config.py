"""Params and settings: what a user can get wrong is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirnet.config import load_settings
from mirnet.errors import UsageError
from mirnet.params import Params, load_params, params_of_run, preset_names

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_and_names_itself(name: str) -> None:
    assert load_params(name).preset == name


def test_params_yaml_is_the_cpu_preset() -> None:
    assert load_params(ROOT / "params.yaml") == load_params("cpu")


def test_override_reads_numbers_as_people_write_them() -> None:
    params = load_params("cpu", overrides=("train.lr=1e-3", "train.grad_clip=null"))
    assert params.train.lr == 0.001
    assert params.train.grad_clip is None


def test_a_plus_sign_makes_an_exposure_stops_and_is_no_matter_elsewhere(tmp_path: Path) -> None:
    """YAML reads +0.5 as the number 0.5, which is a brightness."""
    for text, wanted in (("+0.5", "+0.5 stops"), ("-1", "-1.0 stops"), ("0.5", 0.5)):
        (tmp_path / "p.yaml").write_text(f"enhance: {{exposure: {text}}}\n")
        assert load_params(tmp_path / "p.yaml").enhance.exposure == wanted
        params = load_params("cpu", overrides=(f"enhance.exposure={text}",))
        assert params.enhance.exposure == wanted
        flat = {key: str(value) for key, value in params.flat().items()}
        assert params_of_run(flat).enhance.exposure == wanted
    params = load_params("cpu", overrides=("train.lr=+1e-3", "train.num_epochs=+7"))
    assert (params.train.lr, params.train.num_epochs) == (0.001, 7)
    with pytest.raises(UsageError, match=r"enhance\.exposure: write auto, .* \(got 2\)"):
        load_params("cpu", overrides=("enhance.exposure=2",))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("train.learning_rate=1", "unknown parameter train.learning_rate"),
        ("trian.lr=1", "unknown parameter trian"),
        ("train.lr=7", "train.lr"),
        ("train.lr=fast", "train.lr"),
        ("train.lr", "section.key=value"),
        ("lr=1", "section.key=value"),
        (
            "model.name=mirnet-v3",
            "preset cpu: model.name: no network 'mirnet-v3', did you mean mirnet-v2",
        ),
        ("model.name=3", "--set model.name=3: model.name"),
        ("model.width=0", "preset cpu: model.width: Input should be greater than or equal to 2 "),
        ("model.depth=4", "preset cpu: unknown parameter model.depth; sizes of resunet: width,"),
        (
            "train.patch_size=40",
            "train.patch_size: resunet-s takes multiples of 16, such as 32 or 48 (got 40)",
        ),
        ("validate.val_fraction=1.5", "validate.val_fraction"),
        ("train.lr=[1", "not YAML"),
    ],
)
def test_a_wrong_override_is_named(override: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        load_params("cpu", overrides=(override,))


@pytest.mark.parametrize(
    ("source", "overrides", "used"),
    [
        ("cpu", ("model.name=zerodcepp",), (156, [252])),
        ("demo", ("model.name=llnet-s",), (129, [])),
        ("paper-v2", ("model.name=zerodcepp",), (132, [144, 192, 228])),
        ("cpu", ("model.name=sci",), (160, [256])),
        (
            {"model": {"name": "mirnet-xs"}, "train": {"patch_size": 160}},
            ("model.name=unet-s",),
            (160, []),
        ),
        ({"train": {"patch_size": 160}}, ("model.name=zerodcepp",), (156, [])),
        ({"model": {"name": "llnet-s"}}, (), (129, [])),
    ],
)
def test_a_patch_size_that_was_chosen_for_another_network_is_rounded(
    source: str | dict[str, Any],
    overrides: tuple[str, ...],
    used: tuple[int, list[int]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if isinstance(source, dict):
        path = tmp_path / "own.yaml"
        path.write_text(yaml.safe_dump(source))
        source = str(path)
    recipe = load_params(source, overrides=overrides).train
    first, later = used
    assert recipe.patch_size == first
    assert [stage.patch_size for stage in recipe.progressive] == later
    lines = [record.getMessage() for record in caplog.records]
    assert all(re.match(r"train.patch_size: \d+ is used in place of \d+, ", line) for line in lines)
    assert bool(lines) == (first != 160)


def test_a_patch_size_that_was_chosen_for_the_network_is_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("model: {name: zerodcepp}\ntrain: {patch_size: 160}")
    for source, overrides in (
        (path, ()),
        (path, ("train.lr=1e-3",)),
        ("cpu", ("model.name=zerodcepp", "train.patch_size=160")),
    ):
        with pytest.raises(UsageError, match=r"zerodcepp takes multiples of 12, such as 156 or"):
            load_params(source, overrides=overrides)


def test_a_size_that_is_null_is_that_of_the_named_network(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("model: {name: mirnet-s, n_feat: null, num_rrg: 4}")
    params = load_params(path)
    assert params.model.model_dump() == {"name": "mirnet-s", "num_rrg": 4}
    assert params.model.config.sizes.model_dump() == {
        "n_feat": 32,
        "num_rrg": 4,
        "num_msrb": 1,
        "num_streams": 3,
    }
    assert Params.model_validate_json(params.model_dump_json(by_alias=True)) == params


def test_a_missing_file_lists_the_presets() -> None:
    with pytest.raises(UsageError, match=r"no such preset \(.*cpu.*demo.*\)"):
        load_params("nowhere.yaml")


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text("train: [")
    with pytest.raises(UsageError, match=r"p\.yaml: not YAML"):
        load_params(path)


def test_flat_names_are_those_of_the_file() -> None:
    flat = load_params("cpu").flat()
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    assert flat["train.lr"] == sections["train"]["lr"]
    assert "validate.val_fraction" in flat


def test_a_wrong_setting_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIRNET_NUM_WORKERS", "8-2")
    with pytest.raises(UsageError, match="MIRNET_NUM_WORKERS"):
        load_settings()
    monkeypatch.setenv("MIRNET_NUM_WORKERS", "1-8")
    assert load_settings().worker_range == (1, 8)


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("sqlite:///mine.db", "sqlite:///{here}/mine.db"),
        ("file:./runs", "file:{here}/runs"),
        ("./runs", "{here}/runs"),
        ("sqlite:////srv/mine.db", "sqlite:////srv/mine.db"),
        ("file:///srv/runs", "file:///srv/runs"),
        ("https://mlflow.example", "https://mlflow.example"),
        ("postgresql://user@host/runs", "postgresql://user@host/runs"),
    ],
)
def test_a_store_is_the_same_in_every_folder(
    given: str, used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_settings(tracking_uri=given).mlflow_uri == used.format(here=tmp_path)
