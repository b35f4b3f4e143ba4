import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mirnet.errors import WeightsError
from mirnet.models import build, load_model, save_model
from mirnet.models.files import ARCHITECTURE, WEIGHTS, read_description
from mirnet.models.network import Network
from mirnet.models.registry import NetworkConfig


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = build("mirnet-xs", n_feat=8)
    return save_model(model, tmp_path / "model", extra={"digest": "abc.dir"})


def test_what_is_saved_comes_back(folder: Path) -> None:
    model = load_model(folder)
    assert not model.training
    assert read_description(folder).extra == {"digest": "abc.dir"}
    image = torch.rand(1, 3, 8, 12)
    with torch.inference_mode():
        assert torch.equal(load_model(folder)(image), model(image))


def test_a_folder_of_version_0_1_is_read(folder: Path) -> None:
    written = """{
  "format": 1,
  "architecture": {
    "network": "mirnet",
    "n_feat": 8,
    "num_rrg": 1,
    "num_msrb": 1
  },
  "extra": {"run_id": "abc"}
}
"""
    before = load_model(folder)
    (folder / ARCHITECTURE).write_text(written)
    model = load_model(folder)
    assert (model.config, str(model.config)) == (
        before.config,
        "mirnet (n_feat 8, num_rrg 1, num_msrb 1)",
    )
    assert set(load_file(folder / WEIGHTS)) == {name for name, _ in model.named_parameters()}


def test_the_shared_activation_is_stored_once_and_stays_shared(folder: Path) -> None:
    model = load_model(folder)
    units = [m for m in model.modules() if type(m).__name__ == "DualAttention"]
    assert len(units) == 3
    assert all(unit.activation is units[0].activation for unit in units)


@pytest.mark.parametrize("name", [WEIGHTS, ARCHITECTURE])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(WeightsError, match=f"{name} is missing"):
        load_model(folder)


def test_damaged_weights(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])
    with pytest.raises(WeightsError, match="is not a safetensors file"):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": {"network": "no-net"}}, "architecture.network"),
        ({"format": 99}, "format"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_wrong_description_names_the_key(
    folder: Path, change: dict[str, object], message: str
) -> None:
    path = folder / ARCHITECTURE
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(WeightsError, match=message):
        load_model(folder)


def test_weights_of_another_size_name_the_keys(folder: Path, tmp_path: Path) -> None:
    other = save_model(build("mirnet-xs", n_feat=16), tmp_path / "other")
    (folder / WEIGHTS).write_bytes((other / WEIGHTS).read_bytes())
    with pytest.raises(WeightsError, match=r"conv_in\.weight has shape"):
        load_model(folder)


def test_sizes_that_do_not_fit_the_weights_take_no_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest sizes are 17 GB; only where nothing is allocated may they be built."""
    described = json.loads((folder / ARCHITECTURE).read_text())
    described["architecture"] |= {"n_feat": 256, "num_rrg": 8, "num_msrb": 8}
    (folder / ARCHITECTURE).write_text(json.dumps(described))
    build_it, built = NetworkConfig.build, []

    def watched(config: NetworkConfig) -> Network:
        network = build_it(config)
        built.append({parameter.device.type for parameter in network.parameters()})
        return network

    monkeypatch.setattr(NetworkConfig, "build", watched)
    with pytest.raises(WeightsError, match=r"weights\.safetensors: missing \d+: groups"):
        load_model(folder)
    assert built == [{"meta"}]


def test_a_description_without_end_is_not_read_whole(folder: Path) -> None:
    with (folder / ARCHITECTURE).open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(WeightsError, match=r"architecture\.json: larger than 1048576 bytes"):
        load_model(folder)
