"""Small images for reports: side by side, in 8 bits, inside of a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image

from mirnet.images.image import Pixels


def to_8_bit(pixels: Pixels) -> npt.NDArray[np.uint8]:
    """uint8 as it is; of uint16 the high byte."""
    return np.asarray(pixels >> 8 if pixels.dtype == np.uint16 else pixels, np.uint8)


def side_by_side(images: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) images of one size in a row, with 4 white pixels between them."""
    gap = np.full((images[0].shape[0], 4, 3), 255, np.uint8)
    parts = [part for image in images for part in (image, gap)][:-1]
    return np.concatenate(parts, axis=1)


def data_uri(image: PIL.Image.Image, format: str, *, quality: int) -> str:
    """For the ``src`` of an ``<img>``; ``format`` is JPEG or WEBP."""
    buffer = io.BytesIO()
    image.save(buffer, format, quality=quality)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
