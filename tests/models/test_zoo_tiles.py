"""Every network in tiles: as in one pass at every pixel, with statistics of the whole image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mirnet.errors import UsageError
from mirnet.inference import Enhancer
from mirnet.models import Network, read_checkpoint
from tests.models.test_zoo import SMALL, WITH_ZOO, ZOO, perturbed, uneven

# factors of weights, so that the output depends on the statistics of the whole image by many
# grey levels; with the random weights alone, wrong ones would not show
POOLING = {
    "cidnet-s": {"temperature": 2.0},
    "iat": {"attn.v.": 100.0, "attn.k.": 3.0, "color_linear.": 3.0},
    "llflow-s": {"conv_first": 3.0},
    "mobileie": {"head.block1": 2.5, "att.1.": 3.0, "tail": 1.5},
    "restormer-s": {"temperature": 2.0},
    "retinexformer-s": {"rescale": 30.0, "proj.": 10.0},
}


def depending_on_statistics(name: str) -> Network:
    network = perturbed(name)
    with torch.no_grad():
        for part, factor in POOLING.get(name, {}).items():
            for parameter in (p for n, p in network.named_parameters() if part in n):
                parameter.mul_(factor)
    return network


def small_tiles(enhancer: Enhancer, pixels: npt.NDArray[np.uint8]) -> None:
    """Limit the memory so that two tiles or more are needed."""
    enhancer.max_pixels = enhancer._pixels(*pixels.shape[:2]) * 3 // 4
    assert enhancer.tile_shape(*pixels.shape[:2]) is not None


def deviation(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> int:
    """The maximum over all pixels, in grey levels: a mean hides a corner and a shift of one."""
    return int(np.abs(a.astype(int) - b).max())


@pytest.mark.parametrize("name", SMALL)
def test_images_of_any_size_in_bounded_memory(name: str) -> None:
    pixels, model = uneven(), depending_on_statistics(name)
    enhancer = Enhancer(model, precision="float32", device="cpu", compile=False)
    assert enhancer(pixels[:1, :1]).shape == (1, 1, 3)
    whole = enhancer(pixels)
    small_tiles(enhancer, pixels)
    if not model.architecture.tiled:
        with pytest.raises(UsageError, match=r"397x93 exceeds .* needs all of it at once"):
            enhancer(pixels)
        return
    assert deviation(enhancer(pixels), whole) <= 1


@pytest.mark.parametrize("name", POOLING)
def test_wrong_statistics_show(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison above can fail: with statistics of the image at half the brightness."""
    pixels = uneven()
    network = depending_on_statistics(name)
    enhancer = Enhancer(network, precision="float32", device="cpu", compile=False)
    whole = enhancer(pixels)
    small_tiles(enhancer, pixels)
    right = enhancer._statistics
    monkeypatch.setattr(enhancer, "_statistics", lambda pixels: right(pixels // 2))
    assert deviation(enhancer(pixels), whole) > 1


@WITH_ZOO
def test_published_iat_in_tiles() -> None:
    """Its attention is sharp: estimated statistics were wrong by tens of grey levels."""
    network = read_checkpoint(ZOO / "weights" / "iat_lol_v1.pth")
    enhancer = Enhancer(network, precision="float32", device="cpu", compile=False)
    pixels = uneven(190, 397)
    whole = enhancer(pixels)
    enhancer.max_pixels = enhancer._pixels(*pixels.shape[:2]) // 4
    assert deviation(enhancer(pixels), whole) <= 1
    # each tile with its own
    enhancer.architecture = replace(enhancer.architecture, pools_globally=False)
    assert deviation(enhancer(pixels), whole) > 20
