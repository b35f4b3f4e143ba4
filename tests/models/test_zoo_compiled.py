"""Networks beside MIRNet that repeat a block: it is compiled once, for all places."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mirnet.inference import network as fast
from mirnet.models import Network, build
from mirnet.models.layers.pooling import FULL_IMAGE
from tests.models.test_zoo import SMALL

# sizes, number of blocks, and how many of them differ in their weights' shapes or scale
REPEATED: dict[str, tuple[dict[str, Any], int, int]] = {
    "cidnet-s": ({}, 11, 6),
    "llflow-s": ({}, 6, 1),
    "restormer-s": ({}, 8, 5),
    "retinexformer-s": ({"num_blocks": (1, 2, 1)}, 7, 3),
}


def network(name: str) -> Network:
    torch.manual_seed(0)
    model = build(name, **(SMALL[name] | REPEATED[name][0])).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def compare(model: Network, compiled: fast.FastNetwork, *, atol: float) -> None:
    """With statistics of its own and with given ones, as for tiles."""
    low = torch.rand(1, 3, 40, 48, generator=torch.Generator().manual_seed(0))
    given = [value * 1.01 for value in compiled.statistics(low, FULL_IMAGE)]
    if model.architecture.aligned_corners:
        given.append(torch.tensor([0.0, 0.0, 40.0, 48.0], dtype=torch.float64))
    plain = fast.FastNetwork(model, device=torch.device("cpu"), dtype=torch.float32, compile=False)
    compiled.fix_shapes({(*low.shape, 0), (*low.shape, 1)})
    for values in (None, given):
        torch.testing.assert_close(compiled(low, values), plain(low, values), atol=atol, rtol=0)


@pytest.mark.parametrize("name", REPEATED)
def test_blocks_are_compiled_one_by_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = network(name), []

    def recorded(block: nn.Module, maps: tuple[Tensor, ...], values: tuple[Tensor, ...]) -> Tensor:
        run.append(block)
        return fast.run_block(block, maps, values)

    monkeypatch.setattr(fast, "_compiled", lambda _: recorded)
    monkeypatch.setattr(fast, "can_compile", lambda _: True)
    compiled = fast.FastNetwork(model, device=torch.device("cpu"), dtype=torch.float32)
    compare(model, compiled, atol=1e-5)
    assert len(set(run)) == len(model.repeated_blocks()) == REPEATED[name][1]
    assert len(run) == 2 * len(set(run)), "each once per pass"


@pytest.mark.slow
@pytest.mark.parametrize("name", REPEATED)
def test_a_block_is_compiled_once(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if name != "llflow-s":  # its one block takes seconds; the graphs of the others are counted
        monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = network(name)
    compiled = fast.FastNetwork(model, device=torch.device("cpu"), dtype=torch.float32)
    compare(model, compiled, atol=1e-4)
    assert [r.getMessage() for r in caplog.records if r.name == fast.logger.name] == []
    # with statistics of its own and with given ones; the blocks of LLFlow take none
    ways = 1 if name == "llflow-s" else 2
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == ways * REPEATED[name][2]
