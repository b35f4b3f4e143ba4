"""When a network records its runs, with a stand-in for CUDA graphs: test_inference_on_gpu.py."""

from __future__ import annotations

import logging

import pytest
import torch

from mirnet.inference import network as networks
from mirnet.inference.network import FastNetwork
from mirnet.models import Network, build
from mirnet.models.layers.pooling import FULL_IMAGE


class Recorded:
    """Runs again in place of a replay."""

    count = 0

    def __init__(self, run, image, values, *, pool):
        del pool
        Recorded.count += 1
        self._run = run
        run(image, values)

    def __call__(self, image, values):
        return self._run(image, values)


class Refused(Recorded):
    def __init__(self, run, image, values, *, pool):
        super().__init__(run, image, values, pool=pool)
        raise RuntimeError("operation not permitted when stream is capturing\nmore")


@pytest.fixture
def model() -> Network:
    torch.manual_seed(0)
    return build("mirnet-xs", n_feat=8).eval()


@pytest.fixture
def recording(model, monkeypatch):
    """A network that would record on this device; blocks stay uncompiled."""

    def make(graph: type[Recorded]) -> FastNetwork:
        Recorded.count = 0
        monkeypatch.setattr(networks, "CudaGraph", graph)
        monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: (0, 1))
        monkeypatch.setattr(torch, "compile", lambda block, **_: block)
        network = FastNetwork(model, device=torch.device("cpu"), dtype=torch.float32)
        network._records = True
        return network

    return make


def test_each_shape_is_recorded_once_and_only_when_it_comes_again(recording, model):
    network = recording(Recorded)
    image, other = torch.rand(1, 3, 16, 16), torch.rand(1, 3, 16, 24)
    counts = []
    for picture in (image, image, image, other, other, image):
        with torch.inference_mode():
            assert torch.equal(network(picture), network._run(picture, None))
        counts.append(Recorded.count)
    assert counts == [0, 1, 1, 1, 2, 2]


def test_given_statistics_have_a_recording_of_their_own(recording):
    network = recording(Recorded)
    network.fix_shapes([(1, 3, 16, 16, 0), (1, 3, 16, 16, 1)])
    image = torch.rand(1, 3, 16, 16)
    values = network.statistics(image, FULL_IMAGE)
    assert torch.allclose(network(image), network(image, values), atol=1e-6)
    assert not torch.allclose(network(image), network(image, [v * 0 for v in values]), atol=1e-6)
    assert Recorded.count == 2


def test_settling_forgets_what_was_recorded(recording):
    network = recording(Recorded)
    image = torch.rand(1, 3, 16, 16)
    network.fix_shapes([(1, 3, 16, 16, 0)])
    network(image)
    network.fix_shapes([])
    network(image)
    assert Recorded.count == 1
    assert not network._graphs


def test_a_device_that_refuses_is_used_without(recording, caplog):
    network = recording(Refused)
    network.fix_shapes([(1, 3, 16, 16, 0)])
    image = torch.rand(1, 3, 16, 16)
    with caplog.at_level(logging.WARNING):
        first, second = network(image), network(image)
    assert torch.equal(first, second)
    assert Recorded.count == 1
    assert [r.getMessage() for r in caplog.records if "CUDA graph" in r.getMessage()] == [
        "no CUDA graph could be recorded, going on without: "
        "operation not permitted when stream is capturing"
    ]
