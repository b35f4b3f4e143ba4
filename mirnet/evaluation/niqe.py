"""NIQE: how far the statistics of an image are from those of good photographs; no reference.

Mittal, Soundararajan and Bovik, Making a "Completely Blind" Image Quality Analyzer, IEEE Signal
Processing Letters 2013. The model of good photographs is that of the authors' software release
(125 photographs, blocks of 96 pixels), in ``niqe.npz``; its licence is ``niqe-licence.txt``.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
import PIL.Image
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.special import gamma

from mirnet.evaluation.metrics import luma

Plane = NDArray[np.float64]

BLOCK = 96
"""Side of a block in pixels, as for the model."""
_SIGMA = 7 / 6  # of the 7x7 window
_BORDER = 8
_NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1))


def niqe(image: NDArray[np.uint8]) -> float:
    """NIQE of an (H, W, 3) RGB image: from about 2 to 4 for good photographs upwards.

    Computed on the rounded Rec. 601 luma, as the authors do. NaN where fewer than two blocks of
    96 pixels have any contrast.
    """
    grey = np.rint(luma(image))
    height, width = (side // BLOCK * BLOCK for side in grey.shape)
    grey = grey[:height, :width]
    if grey.size < 2 * BLOCK**2:
        return float("nan")
    features = np.hstack([_features(grey, BLOCK), _features(_halved(grey), BLOCK // 2)])
    complete = features[~np.isnan(features).any(axis=1)]
    if len(complete) < 2:
        return float("nan")
    mean, covariance = _good_photographs()
    # of features that are missing in some blocks, the mean uses all others, as the authors do
    distance = mean - np.nanmean(features, axis=0)
    together = (covariance + np.cov(complete, rowvar=False)) / 2
    return float(np.sqrt(distance @ np.linalg.pinv(together) @ distance))


@functools.cache
def _good_photographs() -> tuple[Plane, Plane]:
    """Mean (36,) and covariance (36, 36) of the features."""
    with (resources.files("mirnet.evaluation") / "niqe.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        return stored["mean"], stored["covariance"]


def _features(grey: Plane, side: int) -> Plane:
    """(blocks, 18) of the luminance in 0..255, normalised by its local mean and deviation."""
    mean = _windowed(grey)
    deviation = np.sqrt(np.abs(_windowed(grey**2) - mean**2))
    normalised = (grey - mean) / (deviation + 1)
    rows, columns = (length // side for length in grey.shape)
    blocks = normalised.reshape(rows, side, columns, side).swapaxes(1, 2)
    return np.array([_of_block(block) for block in blocks.reshape(-1, side, side)])


def _windowed(values: Plane) -> Plane:
    return np.asarray(gaussian_filter(values, _SIGMA, mode="nearest", radius=3))


def _of_block(block: Plane) -> list[float]:
    """Shapes and widths of the distributions of the values and of products of neighbours."""
    shape, left, right = _asymmetric_gaussian(block)
    features = [shape, (left + right) / 2]
    for shift in _NEIGHBOURS:
        shape, left, right = _asymmetric_gaussian(block * np.roll(block, shift, axis=(0, 1)))
        mean = (right - left) * gamma(2 / shape) / gamma(1 / shape)
        features += [shape, mean, left, right]
    return features


_SHAPES = np.arange(0.2, 10.001, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


def _asymmetric_gaussian(values: Plane) -> tuple[float, float, float]:
    """Shape, left and right width of the distribution, by moments (Lasmar et al., ICIP 2009).

    NaN if there are no values on one side.
    """
    left, right = (_deviation(values[side]) for side in (values < 0, values > 0))
    square = np.mean(values**2)
    if np.isnan(left + right) or square == 0:
        return float("nan"), float("nan"), float("nan")
    skew = left / right
    ratio = np.mean(np.abs(values)) ** 2 / square
    ratio *= (skew**3 + 1) * (skew + 1) / (skew**2 + 1) ** 2
    shape = _SHAPES[np.abs(_RATIOS - ratio).argmin()]
    width = np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return float(shape), float(left * width), float(right * width)


def _deviation(values: Plane) -> float:
    return float(np.sqrt(np.mean(values**2))) if values.size else float("nan")


def _halved(grey: Plane) -> Plane:
    """Half the size by an antialiased bicubic filter, with mirrored borders."""
    wide = PIL.Image.fromarray(np.pad(grey, _BORDER, mode="symmetric").astype(np.float32))
    small = wide.resize((wide.width // 2, wide.height // 2), PIL.Image.Resampling.BICUBIC)
    inner = slice(_BORDER // 2, -(_BORDER // 2))
    return np.asarray(small, np.float64)[inner, inner]
