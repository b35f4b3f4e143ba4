"""Convolutions with their activations, and upsampled maps that are never formed."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mirnet.models.layers.attention import ResidualContext, SelectiveKernelFusion
from mirnet.models.layers.resize import (
    AverageDown,
    BilinearUp,
    LazyUpsample,
    Up,
    Upwards,
    upsample2,
)
from mirnet.models.ops.fused import conv_act


def counted(monkeypatch):
    """How often the one-pass operation ran."""
    calls = []
    real = torch.ops.mirnet.conv_act

    def counting(*args):
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(torch.ops.mirnet, "conv_act", counting)
    return calls


@pytest.mark.parametrize("layout", ["channels_last", "contiguous"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("activation", [nn.PReLU(init=-0.3), nn.PReLU(), nn.LeakyReLU(0.2)])
@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(16, 8, 1, bias=False),
        nn.Conv2d(16, 16, 3, padding=1, groups=4, bias=False),
        nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1, output_padding=1, bias=False),
    ],
)
def test_one_pass_gives_what_two_give(layout, dtype, activation, conv, monkeypatch):
    calls = counted(monkeypatch)
    conv, activation = conv.to(dtype), activation.to(dtype)
    x = torch.randn(2, 16, 9, 7).to(dtype)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        wanted = activation(conv(x))
        got = conv_act(conv, activation, x)
    assert len(calls) == 1
    assert got.shape == wanted.shape
    assert got.is_contiguous(memory_format=torch.channels_last)
    # the two round to bf16 twice
    limit = 1e-5 if dtype == torch.float32 else 2**-7
    assert torch.allclose(got.float(), wanted.float(), rtol=limit, atol=limit / 100)


def test_training_autocast_and_float64_keep_the_two_operations(monkeypatch):
    calls = counted(monkeypatch)
    conv, activation = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.PReLU()
    x = torch.randn(1, 4, 8, 8)
    conv_act(conv, activation, x).sum().backward()
    assert conv.weight.grad is not None
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert conv_act(conv, activation, x).dtype == torch.bfloat16
    with torch.inference_mode():
        conv_act(conv.double(), activation.double(), x.double())
    assert calls == []


def test_an_upsampled_map_has_the_mean_of_its_parts():
    small, full = torch.randn(2, 3, 5, 7).double(), torch.randn(2, 3, 10, 14).double()
    stream = LazyUpsample(small, full)
    means = torch.stack([part.mean(dim=(2, 3)) for part in stream.parts]).sum(dim=0)
    assert torch.allclose(means, stream.materialize().mean(dim=(2, 3)), atol=1e-12)
    weight = torch.rand(2, 3, 1, 1).double()
    assert torch.allclose(stream * weight, stream.materialize() * weight, atol=1e-12)
    assert torch.equal(LazyUpsample(small).materialize(), upsample2(small))


def test_fusion_of_unformed_maps_is_that_of_formed_ones():
    torch.manual_seed(0)
    fusion = SelectiveKernelFusion(4, num_streams=3, activation=nn.PReLU()).double()
    plain = torch.randn(2, 4, 8, 12).double()
    ups = [LazyUpsample(torch.randn(2, 4, 4, 6).double(), plain * 0.5) for _ in range(2)]
    got = fusion([plain, *ups])
    wanted = fusion([plain, *(up.materialize() for up in ups)])
    assert torch.allclose(got, wanted, atol=1e-12)


def test_two_steps_upwards_are_two_ups():
    torch.manual_seed(0)
    path = Upwards(Up(8), Up(4)).double()
    x = torch.randn(1, 8, 3, 5).double()
    first, second = path
    assert torch.equal(path(x).materialize(), second(first(x).materialize()).materialize())
    assert path(x).materialize().shape == (1, 2, 12, 20)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ResidualContext(4, groups=2), (1, 4, 3, 4)),
        (AverageDown(3, 4), (1, 3, 4, 6)),
        (BilinearUp(4, 3), (1, 4, 3, 2)),
    ],
)
def test_gradients_of_the_small_modules_of_v2(module, shape):
    torch.manual_seed(0)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)

    def run(value):
        out = module.double()(value)
        return out.materialize() if isinstance(out, LazyUpsample) else out

    assert torch.autograd.gradcheck(run, (x,))


def test_a_block_compiles_without_a_break(monkeypatch):
    """A break would cost more than compilation gives; ``backend="eager"`` only traces."""
    from mirnet.models.mirnet.network import MultiScaleBlock
    from mirnet.models.mirnet_v2.network import MultiScaleBlockV2

    blocks = [
        MultiScaleBlock(8, num_streams=3, activation=nn.PReLU()),
        MultiScaleBlockV2(8, groups=2),
    ]
    x = torch.randn(1, 8, 16, 16).contiguous(memory_format=torch.channels_last)
    for block in blocks:
        torch._dynamo.reset()
        traced = torch.compile(block, fullgraph=True, dynamic=False, backend="eager")
        with torch.inference_mode():
            assert torch.allclose(traced(x), block(x), atol=1e-5)
