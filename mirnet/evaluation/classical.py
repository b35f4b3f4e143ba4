"""Enhancement before networks: Retinex, maps of the illumination, dehazing, unsharp masking.

Each maps uint8 HWC RGB to the same shape, of any size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse
from scipy.ndimage import correlate1d, gaussian_filter, minimum_filter, uniform_filter
from scipy.sparse.linalg import splu

Pixels = NDArray[np.uint8]
Plane = NDArray[np.float64]

_SCALES = (15.0, 80.0, 250.0)
"""Pixels: the surrounds of Retinex."""
_LEAST_RANGE = 1e-6
"""Of a channel of Retinex; what is less is the rounding of the filters."""
_LIME_PIXELS = 500_000
"""Pixels of the largest map of the illumination: its solution takes 0.7 GiB."""


def retinex(pixels: Pixels) -> Pixels:
    """Multi-scale Retinex with colour restoration: log of each channel over its surround.

    Jobson, Rahman and Woodell, IEEE Transactions on Image Processing 1997, after Land's Retinex;
    with the constants, and the stretch of each channel between its 1st and 99th percentile, of
    Petro, Sbert and Morel, Multiscale Retinex, Image Processing On Line 2014, algorithm 3. A
    channel without a range to stretch, such as those of an even image, stays as it is.
    """
    values = pixels.astype(np.float64) + 1
    surrounds = [gaussian_filter(values, (s, s, 0), mode="nearest") for s in _SCALES]
    reflectance = np.mean([np.log(values / surround) for surround in surrounds], axis=0)
    restoration = 46 * (np.log(125 * values) - np.log(values.sum(axis=2, keepdims=True)))
    restored = restoration * reflectance
    low, high = np.percentile(restored, (1, 99), axis=(0, 1))
    stretched = 255 * (restored - low) / np.maximum(high - low, _LEAST_RANGE)
    return _rounded(np.where(high - low < _LEAST_RANGE, pixels, stretched))


def lime(pixels: Pixels) -> Pixels:
    """Division by a map of the illumination that is smooth except at edges.

    Guo, Li and Ling, LIME, IEEE Transactions on Image Processing 2017: the sped-up solver of
    section III-C with the weights of strategy III, alpha 0.15 and gamma 0.8; without its denoising.
    The memory of the solver grows faster than the image, so the map of an image above 0.5
    megapixels is that of a reduced one, enlarged: edges of the light are softer by its pixels.
    """
    values = pixels / 255
    light = values.max(axis=2)
    height, width = light.shape
    scale = min(1.0, (_LIME_PIXELS / light.size) ** 0.5)
    reduced = max(int(width * scale), 1), max(int(height * scale), 1)
    light = _resized(_smoothed(_resized(light, reduced)), (width, height))
    return _rounded(255 * values / np.maximum(light, 1e-3)[..., None] ** 0.8)


def _resized(plane: Plane, size: tuple[int, int]) -> Plane:
    """The plane with this width and height; smoothed where it gets smaller."""
    if size == plane.shape[::-1]:
        return plane
    image = Image.fromarray(plane.astype(np.float32))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.float64)


def _smoothed(light: Plane, *, alpha: float = 0.15, sigma: float = 2.0) -> Plane:
    """Minimise the distance to ``light`` plus weighted squared gradients (equation 19)."""
    height, width = light.shape
    laplacian = sparse.csc_matrix((light.size, light.size))
    for axis in (0, 1):
        size = light.shape[axis]
        forward = sparse.diags_array([-np.ones(size), np.ones(size - 1)], offsets=[0, 1]).tolil()
        forward[-1, -1] = 0.0  # no gradient beyond the border
        others = [sparse.identity(height), sparse.identity(width)]
        others[axis] = forward
        gradient = sparse.kron(*others, format="csc")
        change = (gradient @ light.ravel()).reshape(light.shape)
        weight = 1 / (np.abs(gaussian_filter(change, sigma, mode="nearest")) + 1e-3)
        weight /= np.abs(change) + 1e-3
        laplacian += gradient.T @ sparse.diags_array(weight.ravel()) @ gradient
    system = sparse.identity(light.size, format="csc") + alpha * laplacian
    factors = splu(sparse.csc_matrix(system), permc_spec="MMD_AT_PLUS_A")
    return np.asarray(factors.solve(light.ravel()).reshape(light.shape), np.float64)


def inverted_dehazing(pixels: Pixels) -> Pixels:
    """Removal of haze by the dark channel from the inverted image, inverted again.

    Dong et al., Fast efficient algorithm for enhancement of low lighting video, ICME 2011: omega
    0.8, patches of 9x9, and less removal where the transmission is under 0.5.
    """
    inverted = 255.0 - pixels
    dark = inverted.min(axis=2).ravel()
    haziest = np.argpartition(-dark, min(99, dark.size - 1))[:100]
    candidates = inverted.reshape(-1, 3)[haziest]
    airlight = np.maximum(candidates[candidates.sum(axis=1).argmax()], 1)
    channel = minimum_filter((inverted / airlight).min(axis=2), size=9, mode="nearest")
    transmission = 1 - 0.8 * channel
    transmission = np.where(transmission < 0.5, 2 * transmission**2, transmission)
    clear = (inverted - airlight) / np.maximum(transmission, 0.05)[..., None] + airlight
    return _rounded(255 - clear)


def adaptive_unsharp(pixels: Pixels) -> Pixels:
    """Sharpening whose strength follows the local contrast; it does not brighten.

    Polesel, Ramponi and Mathews, Image enhancement via adaptive unsharp masking, IEEE Transactions
    on Image Processing 2000. The luminance is sharpened along and across, with two strengths that
    a Gauss-Newton step adapts from one column to the next, in all rows at once. Its change is added
    to all channels.
    """
    luma = pixels @ np.array([0.299, 0.587, 0.114])
    along, across = _second_difference(luma, 1), _second_difference(luma, 0)
    details = np.stack([_activity(along), _activity(across)], axis=-1)
    dynamics = _activity(luma)
    wanted = _gain(luma) * dynamics
    height, width = luma.shape
    strengths = np.zeros((height, width, 2))
    current = np.zeros((height, 2))
    moments = np.tile(np.eye(2), (height, 1, 1))
    for column in range(width):
        strengths[:, column] = current
        detail = details[:, column]
        error = wanted[:, column] - dynamics[:, column] - (current * detail).sum(axis=1)
        moments = 0.5 * moments + 0.5 * detail[:, :, None] * detail[:, None, :]
        step = np.linalg.solve(moments + 1e-3 * np.eye(2), detail[..., None])[..., 0]
        current = current + 2 * 0.1 * error[:, None] * step
    change = strengths[..., 0] * along + strengths[..., 1] * across
    return _rounded(pixels + change[..., None])


def _second_difference(values: Plane, axis: int) -> Plane:
    return np.asarray(correlate1d(values, [-1, 2, -1], axis=axis, mode="nearest"))


def _activity(values: Plane) -> Plane:
    """Eight times a value less its eight neighbours: the local dynamics, linear in the image."""
    return np.asarray(9 * values - 9 * uniform_filter(values, 3, mode="nearest"))


def _gain(luma: Plane) -> Plane:
    """Factor on the local dynamics by the local variance: smooth areas stay as they are."""
    mean = uniform_filter(luma, 3, mode="nearest")
    variance = uniform_filter(luma**2, 3, mode="nearest") - mean**2
    return np.select([variance < 60, variance < 200], [1.0, 4.0], 3.0)


def _rounded(values: Plane) -> Pixels:
    return np.rint(np.clip(values, 0, 255)).astype(np.uint8)
