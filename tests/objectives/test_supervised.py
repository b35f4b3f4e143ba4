"""Values by hand or against a second implementation; gradients by finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate, laplace
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from mirnet.evaluation.metrics import ssim
from mirnet.objectives.lyt import terms as lyt
from mirnet.objectives.registry import by_name
from mirnet.objectives.supervised import terms as losses
from mirnet.objectives.total import Sample, combined

TERMS = sorted({*losses.TERMS, *lyt.TERMS})


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


def test_the_aligned_term_is_blind_to_brightness_but_not_beyond_a_factor_of_three():
    target = _batch(1)
    for factor in (0.5, 1.0, 2.9):
        found = losses.aligned(target * factor, target, eps=1e-3)
        torch.testing.assert_close(found, torch.full_like(found, 1e-3))
    assert (losses.aligned(target * 0.1, target, eps=1e-3) > 0.1).all()
    output = _batch(0)
    factor = target.mean((1, 2, 3), keepdim=True) / output.mean((1, 2, 3), keepdim=True)
    expected = losses.charbonnier(output * factor, target, eps=1e-3)
    torch.testing.assert_close(losses.aligned(output, target, eps=1e-3), expected)


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


def test_the_ssim_term_is_the_metric():
    output, target = _batch(0, 96), _batch(1, 96) * 0.5 + _batch(0, 96) * 0.5
    images = [batch.permute(0, 2, 3, 1).numpy() for batch in (output, target)]
    inner = [1 - ssim(x, y, data_range=1.0) for x, y in zip(*images, strict=True)]
    np.testing.assert_allclose(losses.ssim_loss(output, target), inner, rtol=1e-9)
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


def test_the_pyramid_term_by_scipy():
    output, target = _batch(0), _batch(1)
    taps = np.outer([0.05, 0.25, 0.4, 0.25, 0.05], [0.05, 0.25, 0.4, 0.25, 0.05])

    def level(channel):
        blurred = correlate(channel, taps, mode="nearest")
        sparse = np.zeros_like(blurred)
        sparse[::2, ::2] = 4 * blurred[::2, ::2]
        return channel - correlate(sparse, taps, mode="nearest")

    expected = [
        np.mean([level(channel) ** 2 for channel in image])
        for image in (output - target).numpy()  # linear
    ]
    np.testing.assert_allclose(losses.pyramid_edge(output, target), expected, rtol=1e-9)
    flat = torch.full((1, 3, 16, 16), 0.4)
    assert losses.details_of(flat)[..., 3:-3, 3:-3].abs().max() < 1e-6


def test_terms_in_hvi_are_those_in_rgb_of_transformed_images():
    output, target = _batch(0), _batch(1)
    one, other = losses.in_hvi(output), losses.in_hvi(target)
    torch.testing.assert_close(term("hvi", output, target), losses.l1(one, other))
    torch.testing.assert_close(term("hvi-ssim", output, target), losses.ssim_loss(one, other))
    edges = losses.pyramid_edge(one, other)
    torch.testing.assert_close(term("hvi-pyramid-edge", output, target), edges)


@pytest.mark.parametrize("name", ["hvi", "hvi-ssim", "hvi-pyramid-edge", "ms-ssim", "histogram"])
@pytest.mark.parametrize("level", [0.0, 0.25, 1.0])
def test_flat_images_have_a_finite_gradient(name, level):
    output = torch.full((1, 3, 24, 24), level, requires_grad=True)
    term(name, output, _batch(1, 24)[:1].float()).sum().backward()
    assert bool(output.grad.isfinite().all())


@pytest.mark.parametrize("name", ["hvi", "hvi-ssim", "hvi-pyramid-edge"])
def test_gradients_in_hvi_are_bounded_towards_black(name):
    output = (1e-6 * _batch(0, 24)[:1].float()).requires_grad_()
    term(name, output, _batch(1, 24)[:1].float()).sum().backward()
    assert 0 < output.grad.abs().max() < 1  # over 100 without a bound


def test_smooth_l1_and_brightness_by_hand():
    target = torch.zeros(2, 3, 4, 4)
    output = torch.stack([torch.full((3, 4, 4), 0.5), torch.full((3, 4, 4), -2.0)])
    torch.testing.assert_close(lyt.smooth_l1(output, target), torch.tensor([0.125, 1.5]))
    torch.testing.assert_close(lyt.brightness(output, target), torch.tensor([0.5, 2.0]))
    output[0, :, ::2] = -0.5
    torch.testing.assert_close(lyt.brightness(output, target)[0], torch.tensor(0.0))


def test_the_histogram_is_the_plain_sum_of_gaussians():
    image = _batch(0) ** 2
    levels = np.linspace(0, 1, 256)
    values = image.flatten(1).numpy()[..., None]
    plain = np.exp(-((values - levels) ** 2) / (2 * 0.01**2)).sum(1)
    plain /= plain.sum(1, keepdims=True)
    found = lyt.soft_histogram(image).numpy()
    np.testing.assert_allclose(found, plain, atol=2e-3 * plain.max(), rtol=0)
    black = lyt.histogram(torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8))
    np.testing.assert_allclose(black, 2 / 256, rtol=1e-3)


def test_ms_ssim_is_that_of_torchmetrics():
    grey, noise = _batch(0, 192)[:, :1], _batch(1, 192)[:, :1]
    # as channels, three equal ones: their mean is taken at another place there
    output = torch.nn.functional.avg_pool2d(grey, 5, 1, 2).expand(-1, 3, -1, -1).float()
    target = (0.7 * output + 0.3 * noise).float()
    expected = 1 - multiscale_structural_similarity_index_measure(
        output, target, data_range=1.0, reduction="none"
    )
    torch.testing.assert_close(lyt.ms_ssim(output, target), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(lyt.ms_ssim(output, output), torch.zeros(3))


def test_ms_ssim_of_a_small_patch_has_fewer_scales():
    output, target = _batch(0, 20), _batch(1, 20)
    luminance, structure = lyt._similarities(output, target)
    single = (luminance * structure).mean((2, 3)).clamp_min(1e-6).mean(1)
    torch.testing.assert_close(lyt.ms_ssim(output, target), 1 - single)
