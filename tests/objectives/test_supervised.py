"""Values by hand or against a second implementation; gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import laplace

from mirnet.evaluation.metrics import ssim
from mirnet.objectives.registry import by_name
from mirnet.objectives.supervised import terms as losses
from mirnet.objectives.total import Sample, combined

TERMS = sorted(losses.TERMS)


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


def term(name, output, target, *, eps=1e-3):
    return by_name(name).load()(Sample(output=output, low=target, high=target, eps=eps))


@pytest.mark.parametrize("name", TERMS)
def test_each_term_gives_one_value_a_sample_that_no_other_sample_moves(name):
    output, target = _batch(0).float(), _batch(1).float()
    together = term(name, output, target)
    alone = torch.cat([term(name, output[i : i + 1], target[i : i + 1]) for i in (0, 1, 2)])
    assert together.shape == (3,)
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("name", sorted({*TERMS} - {"lvw"}))  # its weight has no gradient
def test_each_term_has_the_gradient_of_its_value(name):
    output = _batch(0, 12)[:1].requires_grad_()
    target = _batch(1, 12)[:1]
    direction = _batch(2, 12)[:1] - 0.5
    term(name, output, target, eps=0.1).sum().backward()
    slope = float((output.grad * direction).sum())
    with torch.no_grad():
        up, down = (
            float(term(name, output + sign * 1e-6 * direction, target, eps=0.1)) for sign in (1, -1)
        )
    assert slope == pytest.approx((up - down) / 2e-6, rel=1e-4, abs=1e-9)


def test_the_sum_is_weighted_and_its_parts_are_not():
    output, target = _batch(0).float(), _batch(1).float()
    sample = Sample(output=output, low=target, high=target)
    total, parts = combined(sample, {"l1": 0.7, "l2": 2.0})
    torch.testing.assert_close(total, 0.7 * losses.l1(output, target) + 2 * parts["l2"])
    torch.testing.assert_close(parts["l2"], losses.l2(output, target))


def test_values_beyond_the_range_still_have_a_gradient():
    output = torch.full((1, 3, 8, 8), 1.5, requires_grad=True)
    term("charbonnier", output, torch.ones(1, 3, 8, 8)).sum().backward()
    assert (output.grad > 0).all()


def test_the_psnr_term_is_a_hundredth_of_what_is_missing_to_50_decibel():
    target = torch.full((2, 3, 8, 8), 0.4)
    output = target + torch.tensor([0.1, 0.01]).reshape(2, 1, 1, 1)
    expected = torch.tensor([0.3, 0.1])  # 20 and 40 dB
    torch.testing.assert_close(losses.psnr(output, target), expected, rtol=0, atol=1e-4)


def test_the_outlier_aware_term_by_numpy():
    output, target = _batch(0), _batch(1)
    difference = (output - target).numpy()
    mean = difference.mean((2, 3), keepdims=True)
    scale = difference.std((2, 3), keepdims=True, ddof=1) / np.sqrt(2) + 1e-6
    expected = np.abs(difference) * np.tanh(np.abs(difference - mean) / scale)
    np.testing.assert_allclose(
        losses.outlier_aware(output, target), expected.mean((1, 2, 3)), rtol=1e-9
    )
    shifted = losses.outlier_aware(target + 0.3, target)
    np.testing.assert_allclose(shifted, 0, atol=1e-6)  # an equal shift is no outlier


def test_the_cosine_term_measures_hue_and_not_brightness():
    target = _batch(1) * 0.5 + 0.1
    torch.testing.assert_close(losses.cosine(0.5 * target, target), torch.zeros(3).double())
    red, blue = torch.eye(3).double()[[0, 2]].reshape(2, 1, 3, 1, 1).expand(2, 1, 3, 4, 4)
    torch.testing.assert_close(losses.cosine(red, blue), torch.ones(1).double())
