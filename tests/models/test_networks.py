from pathlib import Path

import numpy as np
import pytest
import torch

from mirnet.errors import UsageError
from mirnet.models import build, list_architectures, load_model, num_parameters, save_model
from mirnet.models.files import ARCHITECTURE
from mirnet.models.layers.pooling import FULL_IMAGE, RecordedPooling
from mirnet.models.mirnet.network import MIRNet, MultiScaleBlock
from mirnet.params import load_params


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("mirnet", 31_787_419),
        ("mirnet-v2", 5_858_560),
        ("mirnet-s", 2_659_871),
        ("mirnet-xs", 333_392),
    ],
)
def test_parameter_counts(name: str, count: int) -> None:
    with torch.device("meta"):
        assert num_parameters(build(name)) == count
    # others come from packages that happen to be installed
    assert name in list_architectures()


def test_params_override_the_named_sizes() -> None:
    model = build("mirnet-xs", n_feat=8, num_rrg=2)
    assert isinstance(model, MIRNet)
    assert model.conv_in.out_channels == 8
    assert len(model.groups) == 2


def test_mirnet_takes_channels_that_the_reductions_do_not_divide(tmp_path: Path) -> None:
    params = load_params("demo", overrides=("model.name=mirnet-xs", "model.n_feat=13"))
    model = params.model.config.build().eval()
    block = model.groups[0].blocks[0]
    widths = [unit.channel.squeeze.out_channels for unit in block.attention]
    assert widths == [1, 3, 6], "an eighth of 13, 26 and 52, rounded down"
    assert [fusion.squeeze.out_channels for fusion in block.fusion] == [4, 4, 6]
    again = load_model(save_model(model, tmp_path / "model"))
    image = torch.rand(1, 3, 16, 20)
    with torch.inference_mode():
        assert torch.equal(again(image), model(image))


@pytest.mark.parametrize("num_streams", [1, 2, 3])
def test_mirnet_has_as_many_streams_as_asked_for(num_streams: int, tmp_path: Path) -> None:
    model = build("mirnet-xs", n_feat=8, num_streams=num_streams)
    image = torch.rand(1, 3, 16, 20)
    recorded = RecordedPooling(FULL_IMAGE)
    out = model(image, recorded)
    out.square().mean().backward()
    assert out.shape == image.shape
    assert all(p.grad is not None for p in model.parameters())
    (block,) = model.repeated_blocks()
    assert isinstance(block, MultiScaleBlock)
    assert len(block.attention) == num_streams
    assert len(recorded.values) == block.num_statistics, "what tiles are given"
    again = load_model(save_model(model, tmp_path / "model"))
    assert again.config == model.config
    # earlier versions read folders of the published three
    assert ("num_streams" in (tmp_path / "model" / ARCHITECTURE).read_text()) == (num_streams < 3)


def test_v2_refuses_channels_that_its_groups_do_not_divide() -> None:
    with pytest.raises(
        UsageError, match=r"model\.n_feat: Input should be a multiple of 16 \(got 24\)"
    ):
        build("mirnet-v2", n_feat=24)


@pytest.mark.parametrize("name", ["mirnet-xs", "mirnet-v2"])
def test_trains_under_bf16_autocast(name: str) -> None:
    torch.manual_seed(0)
    model = build(name, n_feat=16, num_rrg=1, num_msrb=1)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    low = torch.rand(2, 3, 32, 40)
    losses = []
    for _ in range(8):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = (model(low).float() - low.sqrt()).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0]
