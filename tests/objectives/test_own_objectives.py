"""Networks that are trained with an objective of their own."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mirnet.models import Network, build
from mirnet.objectives.likelihood.terms import likelihood
from mirnet.objectives.patches.terms import sparsity, squared_error
from mirnet.objectives.total import Sample, combined

SIZES: dict[str, dict[str, Any]] = {
    "llflow-s": {"width": 8, "growth": 8, "blocks": 2, "steps": 1, "hidden": 8},
    "llnet-s": {"hidden": (48, 32, 24, 32, 48)},
}


def learned(network: Network, low: torch.Tensor, high: torch.Tensor) -> tuple[float, float]:
    """The objective on images before and after 20 steps on them."""
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    losses = []
    for _ in range(21):
        prediction = network.predict(low, high)
        sample = Sample(output=prediction.output, low=low, high=high, details=prediction.details)
        loss = combined(sample, network.architecture.objective)[0].mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses[0], losses[-1]


@pytest.mark.parametrize("name", SIZES)
def test_twenty_steps_lower_the_objective(name: str) -> None:
    torch.manual_seed(0)
    network = build(name, **SIZES[name]).train()
    high = torch.nn.functional.interpolate(torch.rand(2, 3, 4, 4), size=(24, 24), mode="bilinear")
    first, last = learned(network, high / 4, high)
    assert last < first - 0.1 * abs(first)
    assert bool(network(high / 4).isfinite().all())


def test_the_likelihood_is_that_of_the_change_of_variables() -> None:
    """By the Jacobian of the whole flow, on the smallest image that it takes."""
    torch.manual_seed(0)
    network = build("llflow-s", **SIZES["llflow-s"]).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    low, high = torch.rand(2, 1, 3, 8, 8, dtype=torch.float64)
    given = torch.cat([(low + 1e-3).log(), low], dim=1)
    conditions, mean = network.RRDB(given)
    flow = network.flowUpsamplerNet
    jacobian = torch.autograd.functional.jacobian(lambda x: flow(x, conditions)[0].flatten(), high)
    determinant = torch.linalg.slogdet(jacobian.reshape(192, 192))[1]
    latent = torch.nn.functional.pixel_unshuffle(mean, 8).flatten()
    normal = torch.distributions.Normal(latent, 1.0).log_prob(flow(high, conditions)[0].flatten())
    expected = -(determinant + normal.sum()) / (math.log(2) * 64)
    torch.testing.assert_close(network.likelihoods(given, high)["bits"][0], expected)


def test_the_mean_of_the_likelihood_is_the_true_one_in_a_fifth() -> None:
    image = torch.zeros(2, 3, 8, 8)
    details = {"bits": torch.tensor([1.0, -2.0]), "bits_true_mean": torch.tensor([6.0, -2.0])}
    sample = Sample(output=image, low=image, high=image, details=details)
    torch.testing.assert_close(likelihood(sample), torch.tensor([2.0, -2.0]))


def test_patches_by_hand() -> None:
    patches, wanted = torch.zeros(2, 867, 1, 2), torch.zeros(2, 867, 1, 2)
    patches[1, :2, 0, 0] = 3.0
    torch.testing.assert_close(squared_error(patches, wanted), torch.tensor([0.0, 9.0]))
    activity = torch.tensor([[0.2, 0.2], [0.2, 0.5]])
    one = 0.2 * math.log(0.4) + 0.8 * math.log(1.6)
    torch.testing.assert_close(sparsity(activity), torch.tensor([0.0, one]))


def test_patches_of_the_reference_lie_where_those_of_the_output_do() -> None:
    """The mean over overlapping patches of the reference is the reference."""
    network = build("llnet-s", **SIZES["llnet-s"])
    low, high = torch.rand(2, 2, 3, 21, 27)
    details = network.predict(low, high).details
    torch.testing.assert_close(network._averaged(details["patches_high"], high), high)
