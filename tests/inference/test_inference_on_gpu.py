"""The fast form on a GPU: ``pytest -m gpu tests``."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from mirnet.inference import Enhancer
from mirnet.inference.network import FastNetwork
from mirnet.inference.tiles import tiles
from mirnet.models import Network, build
from mirnet.models.layers.pooling import FULL_IMAGE, GivenPooling

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CUDA = torch.device("cuda")


@pytest.fixture(scope="module")
def model() -> Network:
    torch.manual_seed(0)
    return build("mirnet-xs").eval()


@pytest.fixture(autouse=True)
def _exact_float32() -> Iterator[None]:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def pictures(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.3


def decibel(one: Tensor, other: Tensor) -> float:
    error = (one.float().cpu() - other.float().cpu()).square().mean()
    return float(-10 * torch.log10(error + 1e-20))


@pytest.mark.parametrize(("dtype", "least"), [(torch.float32, 100), (torch.bfloat16, 45)])
def test_replayed_graphs_give_what_the_cpu_gives(model, dtype, least):
    network = FastNetwork(model, device=CUDA, dtype=dtype)
    for seed in range(4):  # eager, compiled, replayed, replayed
        image = pictures(2, 3, 48, 64, seed=seed)
        with torch.inference_mode():
            assert decibel(network(image), model(image)) > least
    assert len(network._graphs) == 1


def test_a_replay_is_the_compiled_run_bit_by_bit(model):
    network = FastNetwork(model, device=CUDA, dtype=torch.bfloat16)
    network.fix_shapes([(1, 3, 64, 48, 0)])
    image, other = pictures(1, 3, 64, 48), pictures(1, 3, 64, 48, seed=1)
    compiled = network(image)
    network(other)
    assert torch.equal(network(image), compiled)
    assert not torch.equal(network(other), compiled)


def test_shapes_share_one_pool_and_do_not_mix(model):
    network = FastNetwork(model, device=CUDA, dtype=torch.bfloat16)
    network.fix_shapes([(1, 3, 64, 48, 0), (1, 3, 32, 32, 0)])
    large, small = pictures(1, 3, 64, 48), pictures(1, 3, 32, 32)
    first = network(large), network(small)
    for _ in range(3):
        assert torch.equal(network(large), first[0])
        assert torch.equal(network(small), first[1])


def test_given_statistics_are_taken_by_a_replay(model):
    network = FastNetwork(model, device=CUDA, dtype=torch.float32)
    network.fix_shapes([(1, 3, 64, 48, 1)])
    image = pictures(1, 3, 64, 48)
    values = network.statistics(image, FULL_IMAGE)
    other = [value * 8 for value in values]
    network(image, values)
    whole, changed = network(image, values), network(image, other)
    with torch.inference_mode():
        assert decibel(whole, model(image)) > 100
    assert decibel(whole, changed) < 90
    # float32 convolutions of cuDNN may add up in another order
    assert decibel(network(image, values), whole) > 110


def test_tiles_on_the_gpu_are_those_of_the_cpu(model):
    """Step by step, so that a failure names the step: each tile, eager and compiled, by both."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 80, (600, 500, 3), dtype=np.uint8)
    here, there = (
        Enhancer(model, device=device, precision="float32", memory_limit_gib=0.25)
        for device in ("cpu", CUDA.type)
    )
    shape = there.tile_shape(600, 500)
    assert shape is not None and shape == here.tile_shape(600, 500)

    statistics, on_gpu = here._statistics(pixels), there._statistics(pixels)
    for number, (one, other) in enumerate(zip(statistics, on_gpu, strict=True)):
        error = (one - other.cpu()).abs().max() / one.abs().max().clamp_min(1e-6)
        assert error < 1e-3, ("statistic", number, len(statistics), float(error))

    # the first image of a shape runs eagerly, the second compiled, on a GPU all others by replay;
    # in float64 nothing is compiled, fused or done by oneDNN
    bad, exact = [], copy.deepcopy(model).double()
    doubles = [value.double() for value in statistics]
    parts = tiles(600, 500, max_pixels=here.max_pixels, halo=here.halo, margin=here.margin)
    for number, part in enumerate(parts):
        low = here._read(pixels, part)
        with torch.inference_mode():
            expected = exact(low.double(), GivenPooling(doubles)).float()
        given = [value.to(CUDA) for value in statistics]
        done = {"cpu": here.network(low, statistics), "gpu": there.network(low, given).cpu()}
        for device, tile in done.items():
            error = (tile - expected).abs()
            where = torch.argwhere(error > 1e-4)
            if len(where):
                spread = where.amin(dim=0).tolist(), where.amax(dim=0).tolist()
                bad.append((number, device, len(where), spread, float(error.max())))
    assert not bad, bad

    difference = np.abs(here(pixels).astype(int) - there(pixels).astype(int))
    levels, counts = np.unique(difference, return_counts=True)
    assert levels.max() <= 1, (levels, counts, np.argwhere(difference > 1))


def test_grouped_convolutions_become_dense_ones_with_the_same_output():
    torch.manual_seed(0)
    grouped = build("mirnet-v2", n_feat=16).eval()
    network = FastNetwork(grouped, device=CUDA, dtype=torch.float32)
    image = pictures(1, 3, 32, 48)
    with torch.inference_mode():
        assert decibel(network(image), grouped(image)) > 100
    assert {m.groups for m in network._model.modules() if isinstance(m, torch.nn.Conv2d)} == {1}
