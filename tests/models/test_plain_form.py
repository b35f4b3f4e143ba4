"""The network against a second implementation, in the order of the papers."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from benchmarks.plain import plain_forward
from mirnet.models import build
from mirnet.models.layers.attention import ContextBlock, DualAttention, SelectiveKernelFusion
from mirnet.models.layers.pooling import FULL_IMAGE, GivenPooling, RecordedPooling
from mirnet.models.layers.resize import BlurDown, Down, Up, upsample2

NETWORKS = [("mirnet", 8), ("mirnet", 13), ("mirnet-v2", 16)]


def small(name: str, n_feat: int) -> torch.nn.Module:
    torch.manual_seed(0)
    return build(name, n_feat=n_feat, num_rrg=1, num_msrb=1).double().eval()


@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
@pytest.mark.parametrize("shape", [(1, 3, 16, 24), (2, 3, 12, 8)])
def test_same_function_as_the_papers(name: str, n_feat: int, shape: tuple[int, ...]) -> None:
    model = small(name, n_feat)
    image = torch.rand(shape, dtype=torch.float64)
    with torch.inference_mode():
        assert torch.allclose(model(image), plain_forward(model, image), atol=1e-12)


@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
@given(rows=st.integers(2, 8), columns=st.integers(2, 8), batch=st.integers(1, 2))
@settings(max_examples=6, deadline=None)
def test_output_has_the_shape_of_the_input(
    name: str, n_feat: int, rows: int, columns: int, batch: int
) -> None:
    model = small(name, n_feat)
    image = torch.rand(batch, 3, 4 * rows, 4 * columns, dtype=torch.float64)
    with torch.inference_mode():
        out = model(image)
    assert out.shape == image.shape
    assert out.isfinite().all()


@pytest.mark.parametrize(("name", "n_feat"), NETWORKS)
def test_recorded_statistics_given_back_change_nothing(name: str, n_feat: int) -> None:
    model = small(name, n_feat)
    image = torch.rand(1, 3, 16, 20, dtype=torch.float64)
    recorded = RecordedPooling(FULL_IMAGE)
    with torch.inference_mode():
        out = model(image, recorded)
        assert len(recorded.values) == model.groups[0].blocks[0].num_statistics
        assert torch.allclose(model(image, GivenPooling(recorded.values)), out, atol=1e-12)
        others = [value + 1 for value in recorded.values]
        assert not torch.allclose(model(image, GivenPooling(others)), out, atol=1e-3)


def test_upsampling_keeps_the_mean() -> None:
    x = torch.rand(1, 2, 3, 5, dtype=torch.float64)
    assert torch.allclose(upsample2(x).mean((2, 3)), x.mean((2, 3)))


def test_blur_down_by_hand() -> None:
    row = torch.tensor([0.0, 4.0, 8.0, 4.0], dtype=torch.float64)
    out = BlurDown(1).double()(row.expand(1, 1, 4, 4))
    # [1 2 1] / 4 around columns 0 and 2, the border mirrored: (4 + 0 + 4) / 4, (4 + 16 + 4) / 4
    assert out[0, 0].tolist() == [[2.0, 6.0], [2.0, 6.0]]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    "module",
    [
        Down(2),
        Up(4),
        DualAttention(8, activation=torch.nn.PReLU()),
        ContextBlock(4, slope=0.2),
    ],
    ids=lambda module: type(module).__name__,
)
def test_gradients(module: torch.nn.Module, batch: int) -> None:
    torch.manual_seed(0)
    module = module.double()
    channels = next(p.shape[1] for p in module.parameters() if p.dim() == 4)
    x = torch.randn(batch, channels, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(module, (x,), fast_mode=True)


def test_gradients_of_fusion() -> None:
    torch.manual_seed(0)
    fusion = SelectiveKernelFusion(4, num_streams=3, activation=torch.nn.PReLU()).double()
    streams = [torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    assert torch.autograd.gradcheck(lambda *s: fusion(s), streams, fast_mode=True)
