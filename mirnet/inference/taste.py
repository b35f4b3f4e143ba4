"""A person's choices applied to an output of a network.

In this order: grain (``denoise``), brightness (``exposure``), and how much of the result
(``strength``), so that strength 0 is the input whatever else was chosen. All of it depends on the
input and the output alone, in bands of fixed size: an image has the same pixels alone, in a batch
and from tiles, as far as the network has.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mirnet.images import Image, Made, Pixels
from mirnet.inference.grain import with_grain
from mirnet.inference.light import (
    Light,
    bands,
    coded,
    exposed,
    gain_beyond,
    gain_for,
    linear,
    unit,
)
from mirnet.params.taste import MAX_STOPS, Taste, taste_of
from mirnet.signals import advance


def made(image: Image, output: Pixels, taste: Taste, *, even: float | None = None) -> Made:
    """The result for an image, given the network's output.

    Args:
        output: (H, W, 3), of more bits if possible; grey if the image is.
        even: stops that bring it to the brightness of the images before it; none: not asked for.
    """
    mixture = taste_of(min(taste.strength, 1), "auto", 1)
    own = finished(image.pixels, output, mixture)
    pixels = finished(image.pixels, output, taste, even=even or 0.0)
    return Made(replace(image, pixels=pixels), own, even)


def finished(before: Pixels, output: Pixels, taste: Taste, *, even: float = 0.0) -> Pixels:
    """An output with a person's choices.

    Args:
        before: the input, (H, W, 3), uint8 or uint16.
        output: the network's output for it, of the same height and width.
        even: stops before those of the taste; a target is met without them.

    Returns:
        A new array of the shape and type of the input.
    """
    if taste.strength == 0:
        return before.copy()
    if taste.denoise < 1:
        output = with_grain(before, output, 1 - taste.denoise)
    gain = 2 ** (taste.stops + even)
    if taste.target is not None:
        gain = gain_for(output, taste.target, max_stops=MAX_STOPS)
    out = np.empty_like(before)
    most = np.iinfo(before.dtype).max
    for rows in bands(*before.shape[:2]):
        advance()
        values = _mixed(unit(before[rows]), _exposed(unit(output[rows]), gain), taste.strength)
        out[rows] = (values * most).round()
    return out


def _exposed(high: Light, gain: float) -> Light:
    return high if gain == 1 else coded(exposed(linear(high), gain))


def _mixed(low: Light, high: Light, strength: float) -> Light:
    """As coded; beyond 1 by the curve of :mod:`mirnet.inference.light`."""
    if strength <= 1:
        mixture: Light = low + np.float32(strength) * (high - low)
        return mixture
    return coded(exposed(linear(high), gain_beyond(low, high, strength - 1)))
