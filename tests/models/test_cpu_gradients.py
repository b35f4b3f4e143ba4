"""Our backward passes against those of torch."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mirnet.models import build
from mirnet.models.ops import cpu_gradients
from mirnet.models.ops.cpu_gradients import PReLU, blur_down, global_mean, max_and_mean


def kernel(channels: int) -> Tensor:
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return (line[:, None] * line[None, :]).expand(channels, 1, 3, 3).contiguous()


def prelu(x: Tensor) -> Tensor:
    return PReLU().to(x.dtype)(x)


def blurred(x: Tensor) -> Tensor:
    return blur_down(x, kernel(x.shape[1]))


PASSES = [prelu, blurred, global_mean, max_and_mean]


def gradient(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Output, and gradient of a weighted sum of it."""
    leaf = x.detach().requires_grad_()
    out = function(leaf)
    torch.manual_seed(1)
    out.backward(torch.randn(out.shape).to(out.dtype))
    assert leaf.grad is not None
    return out.detach(), leaf.grad


def ours(monkeypatch: pytest.MonkeyPatch, *, wanted: bool) -> None:
    monkeypatch.setattr(cpu_gradients, "_wanted", lambda x: wanted and x.requires_grad)


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("shape", [(2, 3, 2, 4), (3, 16, 12, 8), (1, 33, 6, 10)], ids=str)
@pytest.mark.parametrize("function", PASSES)
def test_values_and_gradients_of_torch(
    function: Callable[[Tensor], Tensor],
    shape: tuple[int, ...],
    layout: torch.memory_format,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape).bfloat16().contiguous(memory_format=layout)
    ours(monkeypatch, wanted=False)
    wanted = gradient(function, x.float())
    ours(monkeypatch, wanted=True)
    for value, exact in zip(gradient(function, x.float()), wanted, strict=True):
        torch.testing.assert_close(value, exact, rtol=1e-5, atol=1e-6)
    for value, exact in zip(gradient(function, x), wanted, strict=True):
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value.float(), exact, rtol=2e-2, atol=3e-2)


@pytest.mark.parametrize("function", [prelu, global_mean])
def test_gradcheck(function: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, (x,))


def test_equal_maxima_share_their_gradient() -> None:
    x = torch.tensor([1.0, 3.0, 3.0, 2.0]).reshape(1, 4, 1, 1).requires_grad_()
    max_and_mean(x)[:, 0].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0, 0.5, 0.5, 0]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_gradient_of_a_slope(dtype: torch.dtype, tolerance: float) -> None:
    torch.manual_seed(0)
    unit = PReLU()
    x = torch.randn(2, 3, 5, 5)
    wanted = torch.tensor([0.25], requires_grad=True)
    F.prelu(x, wanted).square().sum().backward()
    unit(x.to(dtype).requires_grad_()).square().sum().backward()
    assert unit.weight.grad is not None and wanted.grad is not None
    assert unit.weight.grad.item() == pytest.approx(wanted.grad.item(), rel=tolerance)


def test_a_backward_pass_inside_autocast_is_exact() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 4, 6)
    exact = gradient(max_and_mean, x)[1]
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(gradient(max_and_mean, x)[1], exact)


def test_traced_code_keeps_the_passes_of_torch() -> None:
    unit, x = PReLU(), torch.randn(1, 2, 4, 4, requires_grad=True)
    traced = torch.jit.trace(unit, x)
    torch.testing.assert_close(traced(x), unit(x))


def test_a_network_in_bf16_has_the_gradients_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is trained on a CPU: to within the rounding that torch's own gradients have."""
    torch.manual_seed(0)
    network = build("mirnet", n_feat=16, num_rrg=1, num_msrb=1)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image, wanted = torch.rand(2, 3, 32, 48), torch.rand(2, 3, 32, 48)

    def gradients(*, half: bool, wanted_passes: bool) -> Tensor:
        ours(monkeypatch, wanted=wanted_passes)
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            output = network(image)
        (output.float() - wanted).square().mean().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    exact = gradients(half=False, wanted_passes=False)

    def error(value: Tensor) -> float:
        return float((value - exact).norm() / exact.norm())

    of_torch = error(gradients(half=True, wanted_passes=False))
    assert 0 < error(gradients(half=True, wanted_passes=True)) < 1.5 * of_torch


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    x = torch.randn(1, 2, 4, 4, requires_grad=True)
    (first,) = torch.autograd.grad(global_mean(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


@pytest.mark.parametrize("name", ["mirnet", "mirnet-v2"])
def test_a_network_has_the_gradients_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network = build(name, n_feat=16, num_rrg=1, num_msrb=1)
    network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    image, wanted = torch.rand(2, 3, 16, 24), torch.rand(2, 3, 16, 24)

    def gradients(*, wanted_passes: bool) -> dict[str, Tensor]:
        ours(monkeypatch, wanted=wanted_passes)
        network.zero_grad()
        (network(image) - wanted).square().mean().backward()
        return {n: p.grad.clone() for n, p in network.named_parameters()}

    reference = gradients(wanted_passes=False)
    for key, value in gradients(wanted_passes=True).items():
        torch.testing.assert_close(value, reference[key], rtol=1e-4, atol=1e-7, msg=key)
