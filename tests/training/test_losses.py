"""Values by hand or against a second implementation; gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace

from mirnet.evaluation.metrics import ssim
from mirnet.params import TrainParams
from mirnet.training import losses

TERMS = ["charbonnier", "l1", "l2", "ssim", "edge", "frequency"]


def _batch(seed=0, size=16):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(3, 3, size, size, generator=generator, dtype=torch.float64)


def test_pointwise_terms_by_hand():
    output = torch.zeros(2, 3, 4, 4)
    target = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), -2.0)])
    torch.testing.assert_close(losses.l1(output, target), torch.tensor([0.5, 2.0]))
    torch.testing.assert_close(losses.l2(output, target), torch.tensor([0.25, 4.0]))
    expected = torch.tensor([(0.25 + 0.01) ** 0.5, (4 + 0.01) ** 0.5])
    torch.testing.assert_close(losses.charbonnier(output, target, eps=0.1), expected)


def test_the_edge_term_is_the_laplacian_of_scipy_and_blind_to_brightness():
    output, target = _batch(0), _batch(1)
    difference = (output - target).numpy()
    expected = [
        np.mean([np.sqrt(laplace(c, mode="nearest") ** 2 + 1e-6) for c in sample])
        for sample in difference
    ]
    np.testing.assert_allclose(losses.edge(output, target, eps=1e-3), expected, rtol=1e-9)
    np.testing.assert_allclose(losses.edge(output, output + 0.3, eps=1e-3), 1e-3, rtol=1e-6)


def test_the_frequency_term_is_the_spectrum_of_numpy():
    output, target = _batch(0), _batch(1)
    spectrum = np.fft.rfft2((output - target).numpy(), norm="ortho")
    expected = (np.abs(spectrum.real) + np.abs(spectrum.imag)).mean(axis=(1, 2, 3)) / 2
    np.testing.assert_allclose(losses.frequency(output, target), expected, rtol=1e-9)


def test_the_ssim_term_agrees_with_the_metric_away_from_the_border():
    output, target = _batch(0, 96), _batch(1, 96) * 0.5 + _batch(0, 96) * 0.5
    images = [batch.permute(0, 2, 3, 1).numpy() for batch in (output, target)]
    inner = [1 - ssim(x, y, data_range=1.0) for x, y in zip(*images, strict=True)]
    np.testing.assert_allclose(losses.ssim_loss(output, target), inner, atol=0.02, rtol=0)
    torch.testing.assert_close(losses.ssim_loss(output, output), torch.zeros(3).double())


@pytest.mark.parametrize("name", TERMS)
def test_each_term_gives_one_value_a_sample_that_no_other_sample_moves(name):
    recipe = TrainParams(loss={name: 1.0})
    output, target = _batch(0).float(), _batch(1).float()
    together = losses.combined(output, target, recipe)
    alone = torch.cat(
        [losses.combined(output[i : i + 1], target[i : i + 1], recipe) for i in (0, 1, 2)]
    )
    assert together.shape == (3,)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", TERMS)
def test_each_term_has_the_gradient_of_its_value(name):
    recipe = TrainParams(loss={name: 1.0}, charbonnier_eps=0.1)
    output = _batch(0, 12)[:1].requires_grad_()
    target = _batch(1, 12)[:1]
    direction = _batch(2, 12)[:1] - 0.5
    losses.combined(output, target, recipe).sum().backward()
    slope = float((output.grad * direction).sum())
    with torch.no_grad():
        up, down = (
            float(losses.combined(output + sign * 1e-6 * direction, target, recipe))
            for sign in (1, -1)
        )
    assert slope == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-9)


def test_the_hybrid_loss_is_the_weighted_sum():
    output, target = _batch(0).float(), _batch(1).float()
    recipe = TrainParams(loss={"l1": 0.7, "l2": 2.0})
    expected = 0.7 * losses.l1(output, target) + 2.0 * losses.l2(output, target)
    torch.testing.assert_close(losses.combined(output, target, recipe), expected)


def test_values_beyond_the_range_still_have_a_gradient():
    output = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    losses.combined(output, torch.ones(1, 3, 8, 8), TrainParams()).sum().backward()
    assert (output.grad > 0).all()
