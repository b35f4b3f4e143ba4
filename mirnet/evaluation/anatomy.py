"""What the squared error of an enhanced image is made of: five parts that add up to it.

The image is cut into blocks of 16x16 pixels, each taken apart by an orthonormal DCT, which keeps
squared sums. In each frequency band and area of 4x4 blocks the output is a multiple of the
reference plus what has nothing to do with the reference.

1. ``noise``: that second share: noise, ringing, artefacts of compression.
2. ``brightness``: what one factor for the whole image would remove from the rest.
3. ``colour``: what a 3x4 matrix for the whole image would remove then: tint, saturation, contrast.
4. ``tone``: what is left in the means of the blocks: areas that are too light or too dark, patches
   of colour.
5. ``detail``: what is left in the other frequencies: blur, or too much sharpness.

Factor and matrix are fitted by least squares to the means of the blocks, where noise averages out:
fitted to pixels they would shrink a noisy image. A reference has noise of its own: an output
without any is charged for it, under ``detail`` where the reference is flat.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import dctn

from mirnet.evaluation.slices import thirds

Floats = NDArray[np.float64]

BLOCK = 16
_AREA = 4
# of the larger index of a coefficient: about half an octave each
_BANDS = np.array([1, 2, 3, 4, 6, 9, 16])
_PREFIX = "error_"


@dataclass(frozen=True)
class Anatomy:
    """Parts of the mean squared error over all values, in squared grey levels of 255."""

    brightness: float
    colour: float
    tone: float
    detail: float
    noise: float

    @property
    def total(self) -> float:
        """The mean squared error."""
        return float(sum(asdict(self).values()))

    def columns(self) -> dict[str, float]:
        """The parts under the names of columns of scores: ``error_brightness`` and so on."""
        return {_PREFIX + part: value for part, value in asdict(self).items()}


PARTS = tuple(field.name for field in fields(Anatomy))
COLUMNS = tuple(_PREFIX + part for part in PARTS)


def dissect(output: NDArray[np.uint8], reference: NDArray[np.uint8]) -> Anatomy:
    """The parts of the squared error between two (H, W, 3) uint8 images of equal size."""
    x, y = output.astype(np.float64), reference.astype(np.float64)
    low, high, noise = _taken_apart(x, y)
    means = low.shares[:, :3]
    factor = np.vdot(means, low.wanted) / max(_squares(means), 1e-12)
    matrix = np.linalg.lstsq(low.shares, low.wanted, rcond=1e-7)[0]
    # what fits the means may not fit the detail: a correction that adds to it is not charged
    of_means = np.minimum.accumulate(
        [_squares(each - low.wanted) for each in (means, factor * means, low.shares @ matrix)]
    )
    of_detail = np.minimum.accumulate(
        [
            _squares(each - high.wanted)
            for each in (high.shares, factor * high.shares, high.shares @ matrix[:3])
        ]
    )
    both, size = of_means + of_detail, x.size
    return Anatomy(
        brightness=float(both[0] - both[1]) / size,
        colour=float(both[1] - both[2]) / size,
        tone=float(of_means[2]) / size,
        detail=float(of_detail[2]) / size,
        noise=noise / size,
    )


def means_by_darkness(scores: pd.DataFrame) -> dict[str, float]:
    """Means of the parts over thirds of the images: ``error_tone_darkest`` and so on.

    Args:
        scores: one row per image, with ``low_luma``.
    """
    return {
        f"{column}_{name}": float(scores.loc[chosen, column].mean())
        for name, chosen in thirds(scores["low_luma"]).items()
        for column in COLUMNS
    }


def _squares(values: Floats) -> float:
    return float(np.vdot(values, values))


@dataclass(frozen=True)
class _Coefficients:
    """What the output has of the reference, (number, 3), and the reference, of a set of
    coefficients; for the means of blocks with a fourth column for the constant of the matrix.
    """

    shares: Floats
    wanted: Floats


def _taken_apart(x: Floats, y: Floats) -> tuple[_Coefficients, _Coefficients, float]:
    """The means of the blocks, the other coefficients, and the squares that are noise."""
    means, details, noise = [], [(np.zeros((0, 3)), np.zeros((0, 3)))], 0.0
    for rows, height in _strips(x.shape[0]):
        for columns, width in _strips(x.shape[1]):
            first, second = (_coefficients(i[rows, columns], height, width) for i in (x, y))
            share, wanted = (each[:, :, 0, 0].reshape(-1, 3) for each in (first, second))
            constant = np.full((len(share), 1), np.sqrt(height * width))
            means.append((np.hstack([share, constant]), wanted))
            for share, wanted, rest in _bands(first, second):
                details.append((share.reshape(-1, 3), wanted.reshape(-1, 3)))
                noise += rest
    low, high = (
        _Coefficients(*(np.vstack(column) for column in zip(*parts, strict=True)))
        for parts in (means, details)
    )
    return low, high, noise


def _strips(side: int) -> list[tuple[slice, int]]:
    """Whole blocks, then what is left of the side, with the size of a block in each."""
    whole = side // BLOCK * BLOCK
    strips = [(slice(0, whole), BLOCK), (slice(whole, side), side - whole)]
    return [(part, block) for part, block in strips if part.stop > part.start]


def _coefficients(image: Floats, height: int, width: int) -> Floats:
    """Orthonormal DCT of the blocks: (rows of blocks, columns of blocks, height, width, 3)."""
    rows, columns = image.shape[0] // height, image.shape[1] // width
    blocks = image.reshape(rows, height, columns, width, 3).transpose(0, 2, 1, 3, 4)
    return np.asarray(dctn(blocks, axes=(2, 3), norm="ortho"))


def _bands(first: Floats, second: Floats) -> list[tuple[Floats, Floats, float]]:
    """By band: the multiple of the reference in the output, the reference, squares of the rest."""
    height, width = first.shape[2:4]
    band = np.searchsorted(_BANDS, np.maximum(*np.indices((height, width))), side="right")
    found = []
    for number in range(1, len(_BANDS)):
        if not (band == number).any():
            continue
        x, y = first[:, :, band == number], second[:, :, band == number]
        multiple = _over_areas(x * y) / np.maximum(_over_areas(y * y), 1e-12)
        share = multiple * y
        found.append((share, y, _squares(x - share)))
    return found


def _over_areas(values: Floats) -> Floats:
    """Sums of (rows, columns, coefficients, 3) by area and channel, given to all its blocks."""
    sums = values.sum(axis=2, keepdims=True)
    for axis in (0, 1):
        number = sums.shape[axis]
        areas = np.add.reduceat(sums, np.arange(0, number, _AREA), axis=axis)
        sums = np.repeat(areas, _AREA, axis=axis).take(range(number), axis=axis)
    return np.asarray(sums)
