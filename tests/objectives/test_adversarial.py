"""The discriminator learns to tell, and the term sees it as it is."""

from __future__ import annotations

import torch

from mirnet.models import num_parameters
from mirnet.objectives.adversarial.discriminator import PatchDiscriminator
from mirnet.objectives.adversarial.terms import adversarial
from mirnet.objectives.total import Sample


def sample(network: PatchDiscriminator, output: torch.Tensor, high: torch.Tensor) -> Sample:
    return Sample(output=output, low=high, high=high, realness=network.as_it_is)


def test_gradients_of_the_term_and_of_the_discriminator_do_not_mix() -> None:
    network = PatchDiscriminator()
    assert num_parameters(network) == 166_753
    output, high = torch.rand(2, 2, 3, 32, 24)
    output.requires_grad_()
    assert network(high).shape == (2, 1, 4, 3)
    adversarial(sample(network, output, high)).sum().backward()
    assert output.grad is not None and bool(output.grad.any())
    assert all(parameter.grad is None for parameter in network.parameters())
    output.grad = None
    network.loss(output, high).sum().backward()
    assert output.grad is None
    assert all(bool(parameter.grad.any()) for parameter in network.parameters())


def test_the_term_falls_where_an_output_looks_like_a_reference() -> None:
    """References have structure, outputs are even: after training both are told apart."""
    torch.manual_seed(0)
    network = PatchDiscriminator()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(40):
        high, output = torch.rand(4, 3, 32, 32), torch.rand(4, 3, 1, 1).expand(-1, -1, 32, 32)
        optimizer.zero_grad()
        network.loss(output, high).mean().backward()
        optimizer.step()
    even = adversarial(sample(network, output, high)).mean()
    assert adversarial(sample(network, high, high)).mean() < even / 4
