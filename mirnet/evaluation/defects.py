"""Measures of defects of enhanced images: clipping, darkening, colour cast, halo, noise.

All take uint8 HWC RGB.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mirnet.evaluation.metrics import luma
from mirnet.images import stats


def noise_sigma(pixels: NDArray[np.uint8]) -> float:
    """Noise level of the Rec. 601 luma in grey levels of 255, without a reference.

    :func:`mirnet.images.stats.noise_sigma` over the image with mirrored borders, so that the
    outermost pixels count too.
    """
    return stats.noise_sigma(np.pad(luma(pixels), 1, mode="symmetric"))


def colourfulness(pixels: NDArray[np.uint8]) -> float:
    """Colourfulness over mean brightness, so that a dark image is judged as a light one; from 0.

    Spread and mean of the opponent colours: Hasler and Süsstrunk, 2003.
    """
    red, green, blue = np.moveaxis(pixels.astype(np.float64), 2, 0)
    opponents = np.stack([red - green, (red + green) / 2 - blue])
    spread = float(np.hypot(*opponents.std(axis=(1, 2))))
    mean = float(np.hypot(*opponents.mean(axis=(1, 2))))
    return (spread + 0.3 * mean) / max(float(luma(pixels).mean()), 1.0)


def clipped_share(pixels: NDArray[np.uint8]) -> float:
    """Share of pixels with a channel at 255, where detail is lost."""
    return float((pixels == 255).any(axis=2).mean())


def crushed_share(pixels: NDArray[np.uint8]) -> float:
    """Share of pixels with all channels at 0."""
    return float((pixels == 0).all(axis=2).mean())


def colour_cast(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Distance of the mean colours in the a*b* plane of CIE Lab: a tint of the whole image."""
    from skimage.color import rgb2lab

    difference = (rgb2lab(output) - rgb2lab(reference))[..., 1:].mean(axis=(0, 1))
    return float(np.hypot(*difference))


def ciede2000(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Mean CIEDE2000 colour difference over pixels (sRGB, D65)."""
    from skimage.color import deltaE_ciede2000, rgb2lab

    difference = deltaE_ciede2000(rgb2lab(reference), rgb2lab(output))  # type: ignore[no-untyped-call]
    return float(difference.mean())


def halo(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> float:
    """Overshoot beside strong edges in grey levels: luma outside of the reference's range.

    Along the 5 % strongest edges of the reference, the output's luma (matched in mean and
    spread) is compared with the minimum and maximum of the reference within 7x7 pixels.
    """
    expected, got = luma(reference), luma(output)
    got = (got - got.mean()) * (expected.std() / max(got.std(), 1e-8)) + expected.mean()
    strength = ndimage.gaussian_gradient_magnitude(expected, sigma=1.0)
    edges = ndimage.binary_dilation(strength >= np.quantile(strength, 0.95), iterations=2)
    over = got - ndimage.maximum_filter(expected, size=7)
    under = ndimage.minimum_filter(expected, size=7) - got
    return float(np.maximum(np.maximum(over, under), 0)[edges].mean())
