"""Classical enhancements that a network must beat. Each maps uint8 HWC RGB to the same shape."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from mirnet.errors import UsageError
from mirnet.evaluation import classical

Enhance = Callable[[NDArray[np.uint8]], NDArray[np.uint8]]

GAMMA = 0.4


def untouched(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return pixels


def autocontrast(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PIL autocontrast: each channel stretched to the full range separately, no cutoff."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(pixels)))


def autocontrast_tone(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PIL autocontrast that preserves hues: one stretch for all channels, from the grey image."""
    return np.asarray(ImageOps.autocontrast(Image.fromarray(pixels), preserve_tone=True))


def gamma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Power law with exponent 0.4 on values in [0, 1]."""
    table = np.rint(255 * (np.arange(256) / 255) ** GAMMA).astype(np.uint8)
    return table[pixels]


def equalize(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """PIL histogram equalisation, per channel."""
    return np.asarray(ImageOps.equalize(Image.fromarray(pixels)))


def clahe(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Contrast-limited adaptive histogram equalisation of the HSV value (scikit-image, clip 0.01).

    Tiles are an eighth of the image.
    """
    from skimage.exposure import equalize_adapthist

    with warnings.catch_warnings():
        # black pixels have no hue; the library divides by their value and then masks the result
        warnings.simplefilter("ignore", RuntimeWarning)
        equalized = equalize_adapthist(pixels, clip_limit=0.01)
    return np.asarray(np.rint(255 * equalized), dtype=np.uint8)


BASELINES: dict[str, Enhance] = {
    "input": untouched,
    "autocontrast": autocontrast,
    "autocontrast-tone": autocontrast_tone,
    "gamma": gamma,
    "equalize": equalize,
    "clahe": clahe,
    "retinex": classical.retinex,
    "lime": classical.lime,
    "inverted-dehazing": classical.inverted_dehazing,
    "adaptive-unsharp": classical.adaptive_unsharp,
}


def baseline(name: str) -> Enhance:
    """The baseline of this name.

    Raises:
        UsageError: no such baseline; lists the existing ones.
    """
    if name not in BASELINES:
        raise UsageError(f"baseline {name}: no such baseline ({', '.join(BASELINES)})")
    return BASELINES[name]
