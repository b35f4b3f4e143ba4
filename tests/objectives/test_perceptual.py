"""The perceptual term: against torch's own layers, and files that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mirnet.errors import WeightsError
from mirnet.objectives.perceptual.features import read_vgg
from mirnet.objectives.perceptual.terms import perceptual
from mirnet.objectives.total import Sample

# five blocks of two convolutions; the fifth is not read
WIDTHS = (4, 6, 8, 8, 4)


def layers() -> nn.Sequential:
    """As torchvision lays them out."""
    torch.manual_seed(0)
    found: list[nn.Module] = []
    before = 3
    for width in WIDTHS:
        for given in (before, width):
            found += [nn.Conv2d(given, width, 3, padding=1), nn.ReLU()]
        found.append(nn.MaxPool2d(2))
        before = width
    return nn.Sequential(*found)


def written(path: Path, **changes: Tensor) -> Path:
    state = {f"features.{name}": value for name, value in layers().state_dict().items()}
    state |= {"classifier.0.weight": torch.zeros(2, 2)}
    for name, value in changes.items():
        state[name.replace("_", ".")] = value
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("name", ["vgg.safetensors", "vgg.pth"])
def test_the_term_is_the_distance_of_torchs_layers(name: str, tmp_path: Path) -> None:
    network = read_vgg(written(tmp_path / name))
    output, high = torch.rand(2, 2, 3, 24, 24)
    output.requires_grad_()
    found = perceptual(Sample(output=output, low=high, high=high, features=network))
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    x, y, expected = (output - mean) / deviation, (high - mean) / deviation, torch.zeros(2)
    for number, layer in enumerate(
        [*layers()][:18]
    ):  # up to the second convolution of the fourth block
        x, y = layer(x), layer(y)
        if number in (2, 7, 12, 17):
            expected = expected + (x - y).square().mean((1, 2, 3))
    torch.testing.assert_close(found, expected)
    ours = torch.autograd.grad(found.sum(), output, retain_graph=True)
    torch.testing.assert_close(ours, torch.autograd.grad(expected.sum(), output))
    assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize(
    "changes",
    [
        {"features_2_weight": torch.zeros(4)},
        {"features_2_weight": torch.zeros(4, 5, 3, 3)},
        {"features_0_weight": torch.zeros(())},
        {"features_2_bias": torch.zeros(5)},
        {"features_1_weight": torch.zeros(4)},
    ],
    ids=["dimensions", "channels", "scalar", "bias", "normalised"],
)
def test_other_networks_are_refused_by_the_name_of_the_file(
    changes: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(WeightsError, match=r"vgg\.safetensors: no VGG network with the names of"):
        read_vgg(written(tmp_path / "vgg.safetensors", **changes))


def test_what_is_no_file_of_tensors_is_refused(tmp_path: Path) -> None:
    damaged = tmp_path / "vgg.safetensors"
    damaged.write_bytes(b"no tensors")
    for path in (damaged, tmp_path / "missing.safetensors"):
        with pytest.raises(WeightsError, match=path.name):
            read_vgg(path)
